"""Kubernetes Events: what has happened to a model, for `kubectl describe` and `kubectl events`.

An Event belongs to an object: to the HTTPRoute of the model, and to the InferenceService of the
version that it is about. Before the model has a route, it belongs to the ConfigMap of the
installation.
"""

import datetime
import hashlib
from typing import Final

from watchkeeper.core.names import serving_name
from watchkeeper.platforms.interface import Announcement
from watchkeeper.platforms.kube.api import (
    CONFIG_MAP,
    EVENT,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    Api,
    Json,
    Kind,
)
from watchkeeper.platforms.kube.labels import MODEL, PART_OF, WATCHKEEPER

MAX_MESSAGE: Final = 1024  # characters that the API server accepts


def announce(api: Api, announcement: Announcement, installation: str) -> None:
    """Create the Events of an announcement that do not exist yet."""
    about = _ours(api, HTTP_ROUTE, announcement.model) or _ours(api, CONFIG_MAP, installation)
    if announcement.version is not None:
        name = serving_name(announcement.model, announcement.version)
        about += _ours(api, INFERENCE_SERVICE, name)
    for kind, metadata in about:
        api.create(EVENT, event(announcement, kind, metadata))


def _ours(api: Api, kind: Kind, name: str) -> list[tuple[Kind, Json]]:
    """Return kind and metadata of an object if it exists and is not somebody else's."""
    found = api.find(kind, name)
    if found is None or found["metadata"].get("labels", {}).get(PART_OF) != WATCHKEEPER:
        return []
    return [(kind, found["metadata"])]


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
