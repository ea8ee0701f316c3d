"""Kubernetes Events: what has happened to a model, for `kubectl describe` and `kubectl events`.

An Event belongs to an object: to the HTTPRoute of the model, and to the InferenceService of the
version that it is about.
"""

import datetime
import hashlib
from typing import Final

from watchkeeper.core.names import serving_name
from watchkeeper.platforms.interface import Announcement
from watchkeeper.platforms.kube.api import EVENT, HTTP_ROUTE, INFERENCE_SERVICE, Api, Json, Kind
from watchkeeper.platforms.kube.labels import MODEL, PART_OF, WATCHKEEPER

MAX_MESSAGE: Final = 1024  # characters that the API server accepts


def announce(api: Api, announcement: Announcement) -> bool:
    """Create the Events of an announcement that do not exist yet.

    Returns False if the model has no route yet, so that it is tried again.
    """
    has_route = False
    objects = [(HTTP_ROUTE, announcement.model)]
    if announcement.version is not None:
        name = serving_name(announcement.model, announcement.version)
        objects.append((INFERENCE_SERVICE, name))
    for kind, name in objects:
        found = api.find(kind, name)
        if found is not None and found["metadata"].get("labels", {}).get(MODEL):
            api.create(EVENT, event(announcement, kind, found["metadata"]))
            has_route = has_route or kind is HTTP_ROUTE
    return has_route


def event(announcement: Announcement, kind: Kind, about: Json) -> Json:
    """Return the Event about the object with the metadata ``about``.

    Its name follows from the id and the object, so that it is created once.
    """
    digest = hashlib.sha256(f"{announcement.id} {about['uid']}".encode()).hexdigest()[:16]
    time = datetime.datetime.fromtimestamp(announcement.time, datetime.UTC)
    timestamp = time.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "metadata": {
            "name": f"{about['name']}.{digest}",
            "namespace": about["namespace"],
            "labels": {PART_OF: WATCHKEEPER, MODEL: announcement.model},
        },
        "involvedObject": {
            "apiVersion": kind.api_version,
            "kind": kind.name,
            "name": about["name"],
            "namespace": about["namespace"],
            "uid": about["uid"],
        },
        "type": "Warning" if announcement.warning else "Normal",
        "reason": announcement.reason,
        "message": announcement.message[:MAX_MESSAGE],
        "firstTimestamp": timestamp,
        "lastTimestamp": timestamp,
        "count": 1,
        "source": {"component": WATCHKEEPER},
        "reportingComponent": WATCHKEEPER,
    }
