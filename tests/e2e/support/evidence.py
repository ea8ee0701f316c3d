"""What to look at after a failure: events, objects and logs of an installation's namespaces."""

from collections.abc import Iterable
from pathlib import Path

from kube import CommandError, items, kubectl

KINDS = "pods,jobs,deployments,services,inferenceservices,httproutes,gateways,configmaps"
LINES = "--tail=2000"


def write_evidence(namespaces: Iterable[str], folder: Path) -> Path:
    """Write all of it into ``folder``; what cannot be had is said there."""
    for namespace in namespaces:
        here = folder / namespace
        here.mkdir(parents=True, exist_ok=True)
        place = f"--namespace={namespace}"
        _write(here / "pods.txt", "get", "pods", "--output=wide", place)
        _write(here / "events.txt", "get", "events", "--sort-by=.lastTimestamp", place)
        _write(here / "objects.yaml", "get", KINDS, "--output=yaml", place)
        for pod, container, restarts in _containers(place):
            words = ("logs", pod, f"--container={container}", LINES, place)
            _write(here / f"{pod}.{container}.log", *words)
            if restarts:
                _write(here / f"{pod}.{container}.previous.log", *words, "--previous")
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
        path.write_text(f"cannot be had: {error}\n")
