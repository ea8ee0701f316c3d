"""Serve versions with InferenceServices of KServe: one per version.

After its creation only the number of replicas changes. Any other change, also of labels and
annotations, would restart the pods.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from watchkeeper.core.names import MAX_NAME, model_uri, serving_name
from watchkeeper.platforms.interface import PlatformError, ServingStatus
from watchkeeper.platforms.kube import pod_status
from watchkeeper.platforms.kube.api import DEPLOYMENT, INFERENCE_SERVICE, POD, Api, Json
from watchkeeper.platforms.kube.cluster_config import ModelConfig
from watchkeeper.platforms.kube.labels import (
    DIGEST,
    MODEL,
    PART_OF,
    VERSION,
    WATCHKEEPER,
    check_ours,
)
from watchkeeper.platforms.kube.route_spec import HTTP_PORT, WITH_TLS

SCALE: Final = ("minReplicas", "maxReplicas", "scaleTarget", "scaleMetric", "autoScaling")
# Standard mode creates Deployments without Knative; the label prevents a route of KServe's own.
# KServe reads both at creation only.
ANNOTATIONS: Final = {"serving.kserve.io/deploymentMode": "Standard"}
LABELS: Final = {"networking.kserve.io/visibility": "cluster-local"}


Warnings = Callable[[Json], list[Json]]


class InferenceServices:
    """The InferenceServices of all models in a namespace."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def add(self, model: str, version: int, digest: str, config: ModelConfig) -> None:
        """Create the InferenceService of a version, or set the replicas of an existing one.

        Raises:
            PlatformError: The version is still being retired, or its name cannot be used.
        """
        name = serving_name(model, version)
        check_host(name, self._api.namespace)
        wanted = inference_service(
            config.inference_service, model, version, digest, self._api.namespace
        )
        found = self._api.find(INFERENCE_SERVICE, name)
        if found is None:
            self._api.apply(INFERENCE_SERVICE, wanted)
            return
        if _is_deleted(check_ours(found, model)):
            raise PlatformError(f"{name} is still being retired; it can be served after that")
        if change := scale_change(found, wanted):
            self._api.merge(INFERENCE_SERVICE, name, {"spec": {"predictor": change}})

    def retire(self, model: str, version: int) -> None:
        """Delete the InferenceService of a version. Its pods drain and ship their last records."""
        name = serving_name(model, version)
        found = self._api.find(INFERENCE_SERVICE, name)
        if found is not None and not _is_deleted(check_ours(found, model)):
            self._api.delete(INFERENCE_SERVICE, name, owned_first=True)

    def statuses(self, model: str, config: ModelConfig | None) -> dict[int, ServingStatus]:
        """Return how each version is served; without ``config`` none is outdated."""
        services = self._api.all(INFERENCE_SERVICE, {MODEL: model})
        if not services:
            return {}
        deployments = {d["metadata"]["name"]: d for d in self._api.all(DEPLOYMENT, {MODEL: model})}
        pods = [pod for pod in self._api.all(POD, {MODEL: model}) if not _is_deleted(pod)]
        found: dict[int, ServingStatus] = {}
        for service in services:
            name, version = service["metadata"]["name"], _version(service)
            own_pods = [p for p in pods if p["metadata"]["labels"].get(VERSION) == str(version)]
            status = serving_status(
                version, service, deployments.get(f"{name}-predictor"), own_pods, self._warnings
            )
            outdated = config is not None and bool(scale_change(service, config.inference_service))
            digest = service["metadata"].get("annotations", {}).get(DIGEST, "")
            found[version] = msgspec.structs.replace(status, outdated=outdated, digest=digest)
        return found

    def _warnings(self, pod: Json) -> list[Json]:
        return self._api.events(pod["metadata"]["name"])

    def served(self, model: str, labels: dict[str, str] | None = None) -> set[int]:
        """Return the versions that are served, ready or not, without those that are retiring.

        With ``labels``, only those whose InferenceService has them.
        """
        services = self._api.all(INFERENCE_SERVICE, {**(labels or {}), MODEL: model})
        return {_version(service) for service in services if not _is_deleted(service)}

    def encrypted(self, model: str) -> set[int]:
        """Return the versions that were created with a port for TLS, until they are gone."""
        return {
            _version(service)
            for service in self._api.all(INFERENCE_SERVICE, {MODEL: model})
            for port in service["spec"]["predictor"]["model"].get("ports", [])
            if port["containerPort"] == WITH_TLS[HTTP_PORT]
        }


def check_host(name: str, namespace: str) -> None:
    """Check the length of the first label of the host name that KServe makes.

    Raises:
        PlatformError: It is too long; the message says how long the namespace may be.
    """
    host = f"{name}-predictor-{namespace}"
    if len(host) > MAX_NAME:
        longest = MAX_NAME - len(host) + len(namespace)
        raise PlatformError(
            f"KServe makes a host name {host}, which is longer than {MAX_NAME} characters: use a "
            f"namespace of at most {longest} characters, or a shorter model name"
        )


def inference_service(
    template: Json, model: str, version: int, digest: str, namespace: str
) -> Json:
    """Return the InferenceService of a version, made from the model's template."""
    name = serving_name(model, version)
    text = msgspec.json.encode(template).decode()
    # The values are names and numbers, which JSON does not escape.
    for variable, value in {"MODEL": model, "VERSION": str(version), "NAME": name}.items():
        text = text.replace(f"${{{variable}}}", value)
    filled: Json = msgspec.json.decode(text)
    metadata, predictor = filled.get("metadata", {}), filled["spec"]["predictor"]
    content = {DIGEST: digest} if digest else {}
    own_labels = {PART_OF: WATCHKEEPER, MODEL: model, VERSION: str(version)}
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {**metadata.get("labels", {}), **LABELS, **own_labels},
            "annotations": {**metadata.get("annotations", {}), **ANNOTATIONS, **content},
        },
        "spec": {
            **filled["spec"],
            "predictor": {
                **predictor,
                "model": {**predictor["model"], "storageUri": model_uri(model, version, digest)},
            },
        },
    }


def scale_change(found: Json, wanted: Json) -> Json:
    """Return the fields of the scale that differ, with their wanted value; None removes a field.

    KServe sets no defaults here, so all values that are found were written by us.
    """
    old, new = found["spec"]["predictor"], wanted["spec"]["predictor"]
    return {key: new.get(key) for key in SCALE if old.get(key) != new.get(key)}


def serving_status(
    version: int,
    service: Json,
    deployment: Json | None,
    pods: list[Json],
    warnings: Warnings = lambda _: [],
) -> ServingStatus:
    """Return how a version is served, from its objects; ``warnings`` are the Events of a pod.

    The Deployment says whether the version can take traffic. The InferenceService does not: it is
    not ready as soon as one of many pods is not, and its observedGeneration is the Deployment's.
    """
    if _is_deleted(service):
        return ServingStatus(version, "retiring", "its pods are draining")
    if deployment is not None and _is_available(deployment, service):
        return ServingStatus(version, "ready")
    waiting = (
        pod_status.missing_files_reason(pods)
        or _invalid_reason(service)
        or _refused_pods_reason(deployment)
    )
    if waiting:
        return ServingStatus(version, "waiting", waiting)
    if crash := pod_status.crash_reason(pods):
        return ServingStatus(version, "failed", crash)
    if unscheduled := pod_status.unscheduled_reason(pods):
        return ServingStatus(version, "waiting", unscheduled)
    return ServingStatus(version, "starting", _starting_reason(service, deployment, pods, warnings))


def _is_available(deployment: Json, service: Json) -> bool:
    """Return whether at least half of the replicas are available.

    A lost pod is replaced, so it must not make the version unready. Replicas that an autoscaler
    adds to the minimum do not count.
    """
    metadata, status = deployment["metadata"], deployment.get("status", {})
    if service["metadata"]["uid"] not in [o["uid"] for o in metadata.get("ownerReferences", [])]:
        return False  # of an earlier InferenceService of the same name
    if status.get("observedGeneration", 0) < metadata["generation"]:
        return False
    replicas = deployment["spec"].get("replicas", 1)
    minimum = min(replicas, service["spec"]["predictor"].get("minReplicas", replicas))
    needed = max(1, (minimum + 1) // 2)
    return bool(status.get("availableReplicas", 0) >= needed)


def _invalid_reason(service: Json) -> str:
    """Return why KServe cannot serve the version for a reason outside of it, such as its runtime.

    ``transitionStatus`` decides, because KServe never removes the last failure.
    """
    status = service.get("status", {}).get("modelStatus", {})
    if status.get("transitionStatus") != "InvalidSpec":
        return ""
    failure = status.get("lastFailureInfo", {})
    return f"for KServe: {failure.get('reason', 'InvalidSpec')}: {failure.get('message', '')}"


def _refused_pods_reason(deployment: Json | None) -> str:
    """Return why pods cannot be created, such as a quota."""
    reason = _condition(deployment, "ReplicaFailure", "True") if deployment else ""
    return reason and f"for its pods: {reason}"


def _starting_reason(
    service: Json, deployment: Json | None, pods: list[Json], warnings: Warnings
) -> str:
    if deployment is None:
        reason = _condition(service, "PredictorReady", "False")
        return reason or "KServe has not created its Deployment yet"
    return (
        pod_status.waiting_reason(pods)
        or pod_status.not_ready_reason(pods)
        or pod_status.warning_reason(event for pod in pods for event in warnings(pod))
        or "its pods are starting"
    )


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
            f"InferenceService {metadata['name']}: its label {VERSION}={text!r} does not match its "
            f"name; delete it, or remove its label {MODEL}"
        )
    return int(text)


def _is_deleted(found: Json) -> bool:
    """Return whether an object is being deleted."""
    return "deletionTimestamp" in found["metadata"]
