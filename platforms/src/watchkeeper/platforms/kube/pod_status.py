"""What the status of pods says: why they are not ready, and which containers run.

The functions that return a reason return an empty string if it does not apply.
"""

from collections.abc import Iterable, Iterator

from watchkeeper.core.exit_codes import EXIT_REGISTRY_UNREACHABLE
from watchkeeper.core.logs import message_of
from watchkeeper.platforms.interface import Process
from watchkeeper.platforms.kube.api import Json

INITIALIZER = "storage-initializer"  # KServe's name of the container that fetches the files
FAILED_AFTER = 4  # starts
LONGEST_MESSAGE = 1000  # characters
# Reasons of Events that say what a pod waits for, where its status only says that it waits
NEEDS = (
    "FailedMount",
    "FailedAttachVolume",
    "FailedCreate",
    "FailedCreatePodSandBox",
    "FailedScheduling",
)


def missing_files_reason(pods: Iterable[Json]) -> str:
    """Return why pods wait for their files while the registry does not answer."""
    for pod in pods:
        for status in pod.get("status", {}).get("initContainerStatuses", []):
            ended = _last_termination(status)
            if status["name"] == INITIALIZER and ended.get("exitCode") == EXIT_REGISTRY_UNREACHABLE:
                return f"for its files: {_last_message(ended) or 'the registry does not answer'}"
    return ""


def unscheduled_reason(pods: Iterable[Json]) -> str:
    """Return why no node has room for a pod."""
    for pod in pods:
        for condition in pod.get("status", {}).get("conditions", []):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                message = condition.get("message", "not scheduled")
                return f"for room: {pod['metadata']['name']}: {message}"
    return ""


def crash_reason(pods: Iterable[Json]) -> str:
    """Return which container has ended after each of several starts, and why."""
    for pod, status in _containers(pods):
        starts, ended = status.get("restartCount", 0) + 1, _last_termination(status)
        if starts >= FAILED_AFTER and _waiting(status).get("reason") == "CrashLoopBackOff":
            why = _last_message(ended) or f"exit code {ended.get('exitCode')}"
            return f"{status['name']} started {starts} times: {why} (see {_log(pod, status)})"
    return ""


def waiting_reason(pods: Iterable[Json]) -> str:
    """Return which container cannot start, and why, such as an image that is missing."""
    for pod, status in _containers(pods):
        waiting = _waiting(status)
        if waiting.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
            message = waiting.get("message") or _last_message(_last_termination(status))
            return f"{status['name']} of {pod['metadata']['name']}: {waiting['reason']}: {message}"
    return ""


def not_ready_reason(pods: Iterable[Json]) -> str:
    """Return which container runs and is not ready."""
    for pod, status in _containers(pods):
        if not status.get("ready") and "running" in status.get("state", {}):
            return f"{status['name']} of {pod['metadata']['name']} is not ready yet"
    return ""


def termination_reason(pods: Iterable[Json]) -> str:
    """Return the last message of the container that ended last with an error, with its log."""
    ended = [
        (termination.get("finishedAt", ""), pod, status, termination)
        for pod, status in _containers(pods)
        if (termination := _last_termination(status)).get("exitCode", 0) != 0
    ]
    if not ended:
        return ""
    _, _, status, termination = max(ended, key=lambda each: each[0])
    message = _last_message(termination) or termination.get("reason", "no message")
    return f"{status['name']}: exit code {termination['exitCode']}: {message}"


def is_running(pods: Iterable[Json]) -> bool:
    """Return whether a container of the pods runs, so that nothing keeps it from starting."""
    return any("running" in status.get("state", {}) for _, status in _containers(pods))


def warning_reason(events: Iterable[Json]) -> str:
    """Return the newest warning about what a pod needs, such as a Secret or its quota."""
    found = [event for event in events if event.get("reason") in NEEDS]
    return f"{found[-1]['reason']}: {found[-1].get('message', '')[:300]}" if found else ""


def processes(pods: Iterable[Json]) -> list[Process]:
    """Return the containers of pods, as shown to people."""
    return [
        Process(
            f"{pod['metadata']['name']}/{status['name']}", _state(status), log=_log(pod, status)
        )
        for pod, status in _containers(pods)
    ]


def _containers(pods: Iterable[Json]) -> Iterator[tuple[Json, Json]]:
    for pod in pods:
        for group in ("initContainerStatuses", "containerStatuses"):
            for status in pod.get("status", {}).get(group, []):
                yield pod, status


def _state(status: Json) -> str:
    state = status.get("state", {})
    if "running" in state:
        return "running"
    if "terminated" in state:
        return "succeeded" if state["terminated"]["exitCode"] == 0 else "failed"
    return str(_waiting(status).get("reason", "waiting")).lower()


def _waiting(status: Json) -> Json:
    return status.get("state", {}).get("waiting") or {}


def _last_termination(status: Json) -> Json:
    """Return how a container that does not run ended last."""
    state = status.get("state", {})
    if "running" in state:
        return {}
    return state.get("terminated") or status.get("lastState", {}).get("terminated") or {}


def _last_message(ended: Json) -> str:
    lines = ended.get("message", "").strip().splitlines()
    return message_of(lines[-1])[:LONGEST_MESSAGE] if lines else ""


def _log(pod: Json, status: Json) -> str:
    metadata = pod["metadata"]
    return f"kubectl logs -n {metadata['namespace']} {metadata['name']} -c {status['name']}"
