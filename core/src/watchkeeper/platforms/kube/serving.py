"""Serving: an InferenceService for each version, made once and never changed but for replicas.

Any other change would start its pods again: labels, annotations and environment reach them.
"""

from typing import Final

import msgspec

from watchkeeper.contracts.names import MAX_NAME, model_uri, serving_name
from watchkeeper.platforms.interface import PlatformError, Serving
from watchkeeper.platforms.kube import pods as pods_of
from watchkeeper.platforms.kube.api import DEPLOYMENT, INFERENCE_SERVICE, POD, Api, Json
from watchkeeper.platforms.kube.installation import Model
from watchkeeper.platforms.kube.labels import MODEL, PART_OF, VERSION, WATCHKEEPER, check_ours

SCALE: Final = ("minReplicas", "maxReplicas", "scaleTarget", "scaleMetric", "autoScaling")
# Standard mode: Deployments, no Knative. No route of KServe's own. Both only count at creation.
ANNOTATIONS: Final = {"serving.kserve.io/deploymentMode": "Standard"}
LABELS: Final = {"networking.kserve.io/visibility": "cluster-local"}


class InferenceServices:
    """The InferenceServices of all models in a namespace."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def add(self, model: str, version: int, template: Model) -> None:
        """Have a version served; of one that is served already only the replicas are changed."""
        name = serving_name(model, version)
        check_host(name, self._api.namespace)
        wanted = inference_service(template.inference_service, model, version, self._api.namespace)
        found = self._api.find(INFERENCE_SERVICE, name)
        if found is None:
            self._api.apply(INFERENCE_SERVICE, wanted)
            return
        if _is_leaving(check_ours(found, model)):
            raise PlatformError(f"{name} is still being retired; it is served again after that")
        if change := rescaling(found, wanted):
            self._api.merge(INFERENCE_SERVICE, name, {"spec": {"predictor": change}})

    def retire(self, model: str, version: int) -> None:
        """Have a version go; its pods drain and ship the tail, and it is "retiring" until then."""
        name = serving_name(model, version)
        found = self._api.find(INFERENCE_SERVICE, name)
        if found is not None and not _is_leaving(check_ours(found, model)):
            self._api.delete(INFERENCE_SERVICE, name)

    def states(self, model: str, template: Model | None) -> dict[int, Serving]:
        """Return how each version does; without a template none is outdated."""
        services = self._api.all(INFERENCE_SERVICE, {MODEL: model})
        if not services:
            return {}
        deployments = {d["metadata"]["name"]: d for d in self._api.all(DEPLOYMENT, {MODEL: model})}
        pods = [pod for pod in self._api.all(POD, {MODEL: model}) if not _is_leaving(pod)]
        found: dict[int, Serving] = {}
        for service in services:
            name, version = service["metadata"]["name"], _version(service)
            mine = [p for p in pods if p["metadata"]["labels"].get(VERSION) == str(version)]
            told = state(version, service, deployments.get(f"{name}-predictor"), mine)
            outdated = template is not None and bool(rescaling(service, template.inference_service))
            found[version] = msgspec.structs.replace(told, outdated=outdated)
        return found

    def served(self, model: str) -> set[int]:
        """Return the versions that are served, ready or not, and not on their way out."""
        services = self._api.all(INFERENCE_SERVICE, {MODEL: model})
        return {_version(service) for service in services if not _is_leaving(service)}


def check_host(name: str, namespace: str) -> None:
    """Check what KServe makes a host's first label from; it serves nothing by one that is too long.

    Raises:
        PlatformError: it is; the message says how long the namespace may be.
    """
    host = f"{name}-predictor-{namespace}"
    if len(host) > MAX_NAME:
        most = MAX_NAME - len(host) + len(namespace)
        raise PlatformError(
            f"KServe names a host {host}, which is longer than {MAX_NAME}: install in a namespace "
            f"of at most {most} letters, or name the model in fewer"
        )


def inference_service(template: Json, model: str, version: int, namespace: str) -> Json:
    """Fill in the template for one version."""
    name = serving_name(model, version)
    text = msgspec.json.encode(template).decode()
    # All of these are plain words, which need no escaping inside of JSON.
    for variable, value in {"MODEL": model, "VERSION": str(version), "NAME": name}.items():
        text = text.replace(f"${{{variable}}}", value)
    filled: Json = msgspec.json.decode(text)
    metadata, predictor = filled.get("metadata", {}), filled["spec"]["predictor"]
    own = {PART_OF: WATCHKEEPER, MODEL: model, VERSION: str(version)}
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {**metadata.get("labels", {}), **LABELS, **own},
            "annotations": {**metadata.get("annotations", {}), **ANNOTATIONS},
        },
        "spec": {
            **filled["spec"],
            "predictor": {
                **predictor,
                "model": {**predictor["model"], "storageUri": model_uri(model, version)},
            },
        },
    }


def rescaling(found: Json, wanted: Json) -> Json:
    """Return how an InferenceService's scale must change to be as wanted; None takes a field away.

    KServe fills in none of these, so what was written is what is found.
    """
    old, new = found["spec"]["predictor"], wanted["spec"]["predictor"]
    return {key: new.get(key) for key in SCALE if old.get(key) != new.get(key)}


def state(version: int, service: Json, deployment: Json | None, pods: list[Json]) -> Serving:
    """Tell how a version does.

    The Deployment says whether it can take traffic: the InferenceService's own readiness is lost
    whenever a single pod of many is, and its observedGeneration is the Deployment's.
    """
    if _is_leaving(service):
        return Serving(version, "retiring", "its pods are draining")
    if deployment is not None and _is_available(deployment, service):
        return Serving(version, "ready")
    if why := pods_of.waits_for_files(pods) or _invalid(service) or _refused(deployment):
        return Serving(version, "waiting", why)
    if why := pods_of.gave_up(pods):
        return Serving(version, "failed", why)
    if why := pods_of.waits_for_room(pods):
        return Serving(version, "waiting", why)
    return Serving(version, "starting", _why(service, deployment, pods))


def _is_available(deployment: Json, service: Json) -> bool:
    """Tell whether half of the replicas are available: one that is lost is replaced, no more.

    Those that an autoscaler adds to the least there are do not count.
    """
    metadata, status = deployment["metadata"], deployment.get("status", {})
    if service["metadata"]["uid"] not in [o["uid"] for o in metadata.get("ownerReferences", [])]:
        return False  # of an earlier InferenceService of the same name
    if status.get("observedGeneration", 0) < metadata["generation"]:
        return False
    replicas = deployment["spec"].get("replicas", 1)
    least = min(replicas, service["spec"]["predictor"].get("minReplicas", replicas))
    needed = max(1, (least + 1) // 2)
    return bool(status.get("availableReplicas", 0) >= needed)


def _invalid(service: Json) -> str:
    """Say what of its surroundings KServe cannot serve a version by, or nothing.

    That is no fault of the version. The last failure is never cleared, the transition is.
    """
    status = service.get("status", {}).get("modelStatus", {})
    if status.get("transitionStatus") != "InvalidSpec":
        return ""
    failure = status.get("lastFailureInfo", {})
    return f"for KServe: {failure.get('reason', 'InvalidSpec')}: {failure.get('message', '')}"


def _refused(deployment: Json | None) -> str:
    """Say why no pods may be made, such as a quota, or nothing."""
    why = _condition(deployment, "ReplicaFailure", "True") if deployment else ""
    return why and f"for its pods: {why}"


def _why(service: Json, deployment: Json | None, pods: list[Json]) -> str:
    if deployment is None:
        return (
            _condition(service, "PredictorReady", "False") or "KServe has made no pods for it yet"
        )
    return pods_of.waits_for(pods) or "its pods are being started"


def _condition(found: Json, kind: str, value: str) -> str:
    for condition in found.get("status", {}).get("conditions", []):
        if condition["type"] == kind and condition["status"] == value:
            return str(condition.get("message") or condition.get("reason") or "")
    return ""


def _version(service: Json) -> int:
    metadata = service["metadata"]
    text = metadata["labels"].get(VERSION, "")
    if not text.isdecimal() or metadata["name"] != serving_name(
        metadata["labels"][MODEL], int(text)
    ):
        raise PlatformError(
            f"InferenceService {metadata['name']}: its label {VERSION}={text!r} is not that of its "
            f"name; delete it, or take its label {MODEL} away"
        )
    return int(text)


def _is_leaving(found: Json) -> bool:
    return "deletionTimestamp" in found["metadata"]
