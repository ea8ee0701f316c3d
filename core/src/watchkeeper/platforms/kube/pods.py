"""What pods say about themselves: why they are not ready, and what runs in them."""

from collections.abc import Iterable, Iterator
from typing import Any

from watchkeeper.contracts.version import UNREACHABLE
from watchkeeper.platforms.interface import Process
from watchkeeper.platforms.kube.api import Json

INITIALIZER = "storage-initializer"  # KServe's name for what fetches the files
FAILED_AFTER = 4  # starts without staying up


def waits_for_files(pods: Iterable[Json]) -> str:
    """Say what pods wait for whose registry is away, or nothing."""
    for pod in pods:
        for status in pod.get("status", {}).get("initContainerStatuses", []):
            ended = _last_end(status)
            if status["name"] == INITIALIZER and ended.get("exitCode") == UNREACHABLE:
                return f"for its files: {_said(ended) or 'the registry does not answer'}"
    return ""


def waits_for_room(pods: Iterable[Json]) -> str:
    """Say what a pod waits for that no node can take, or nothing."""
    for pod in pods:
        for condition in pod.get("status", {}).get("conditions", []):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                said = condition.get("message", "not scheduled")
                return f"for room: {pod['metadata']['name']}: {said}"
    return ""


def gave_up(pods: Iterable[Json]) -> str:
    """Say which container was started again and again, and why it ended, or nothing."""
    for pod, status in _containers(pods):
        starts, ended = status.get("restartCount", 0) + 1, _last_end(status)
        if starts >= FAILED_AFTER and _waiting(status).get("reason") == "CrashLoopBackOff":
            why = _said(ended) or f"exit code {ended.get('exitCode')}"
            return f"{status['name']} started {starts} times: {why} (see {_log(pod, status)})"
    return ""


def waits_for(pods: Iterable[Json]) -> str:
    """Say what keeps pods from being ready, or nothing."""
    pods = list(pods)
    for pod, status in _containers(pods):
        waiting = _waiting(status)
        if waiting.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
            said = waiting.get("message") or _said(_last_end(status))
            return f"{status['name']} of {pod['metadata']['name']}: {waiting['reason']}: {said}"
    for pod, status in _containers(pods):
        if not status.get("ready") and "running" in status.get("state", {}):
            return f"{status['name']} of {pod['metadata']['name']} is not ready yet"
    return ""


def processes(pods: Iterable[Json]) -> list[Process]:
    """Return the containers of pods, for people."""
    return [
        Process(
            f"{pod['metadata']['name']}/{status['name']}", _state(status), log=_log(pod, status)
        )
        for pod, status in _containers(pods)
    ]


def _containers(pods: Iterable[Json]) -> Iterator[tuple[Json, Json]]:
    for pod in pods:
        for group in ("initContainerStatuses", "containerStatuses"):
            for each in pod.get("status", {}).get(group, []):
                yield pod, each


def _state(status: Json) -> str:
    state = status.get("state", {})
    if "running" in state:
        return "running"
    if "terminated" in state:
        return "succeeded" if state["terminated"]["exitCode"] == 0 else "failed"
    return str(_waiting(status).get("reason", "waiting")).lower()


def _waiting(status: Json) -> dict[str, Any]:
    return status.get("state", {}).get("waiting") or {}


def _last_end(status: Json) -> dict[str, Any]:
    """Return how a container that does not run ended last."""
    state = status.get("state", {})
    if "running" in state:
        return {}
    return state.get("terminated") or status.get("lastState", {}).get("terminated") or {}


def _said(ended: Json) -> str:
    lines = ended.get("message", "").strip().splitlines()
    return lines[-1][:300] if lines else ""


def _log(pod: Json, status: Json) -> str:
    metadata = pod["metadata"]
    return f"kubectl logs -n {metadata['namespace']} {metadata['name']} -c {status['name']}"
