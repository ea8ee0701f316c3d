"""Events, objects and logs of namespaces, for the analysis of a failure."""

from collections.abc import Iterable
from pathlib import Path

from kube import CommandError, items, kubectl

KINDS = "pods,jobs,deployments,services,inferenceservices,httproutes,gateways,configmaps"
LINES = "--tail=2000"


def write_diagnostics(namespaces: Iterable[str], folder: Path) -> Path:
    """Write them into a folder for each namespace. A file of failed commands has the error."""
    for namespace in namespaces:
        target = folder / namespace
        target.mkdir(parents=True, exist_ok=True)
        place = f"--namespace={namespace}"
        _write(target / "pods.txt", "get", "pods", "--output=wide", place)
        _write(target / "events.txt", "get", "events", "--sort-by=.lastTimestamp", place)
        _write(target / "objects.yaml", "get", KINDS, "--output=yaml", place)
        for pod, container, restarts in _containers(place):
            words = ("logs", pod, f"--container={container}", LINES, place)
            _write(target / f"{pod}.{container}.log", *words)
            if restarts:
                _write(target / f"{pod}.{container}.previous.log", *words, "--previous")
    return folder


def _containers(place: str) -> list[tuple[str, str, int]]:
    try:
        pods = items("pods", place)
    except CommandError:
        return []
    return [
        (pod["metadata"]["name"], status["name"], status["restartCount"])
        for pod in pods
        for statuses in ("initContainerStatuses", "containerStatuses")
        for status in pod["status"].get(statuses, [])
    ]


def _write(path: Path, *words: str) -> None:
    try:
        path.write_text(kubectl(*words))
    except CommandError as error:
        path.write_text(f"not available: {error}\n")
