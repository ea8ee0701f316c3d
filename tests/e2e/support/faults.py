"""What can go wrong on a cluster, brought about on purpose and undone again."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kube import CLUSTER, get, items, kubectl, until

AWAY_SECONDS = 20.0
HOLD = CLUSTER / "hold"


def kill_container(namespace: str, pod: str, container: str) -> None:
    """Kill -9 the first process of a container, and wait until it has been started again."""
    before = _status(namespace, pod, container)
    _, _, identity = before["containerID"].partition("://")
    os.kill(_first_process(identity), signal.SIGKILL)
    until(
        f"{container} of {pod} was started again",
        lambda: _status(namespace, pod, container)["restartCount"] > before["restartCount"],
    )


def _status(namespace: str, pod: str, container: str) -> dict[str, Any]:
    status = get("pod", pod, f"--namespace={namespace}")["status"]
    both = [*status.get("initContainerStatuses", []), *status["containerStatuses"]]
    found: dict[str, Any] = next(one for one in both if one["name"] == container)
    return found


def _first_process(container: str) -> int:
    """Return the pid, as this machine sees it, of a container's first process."""
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and container in (folder / "cgroup").read_text():
                status = (folder / "status").read_text()
                ids = next(line for line in status.splitlines() if line.startswith("NSpid:"))
                if ids.split()[-1] == "1":
                    return int(folder.name)
    raise AssertionError(f"no process of container {container} on this machine")


def delete_pod(namespace: str, pod: str, *options: str) -> None:
    """Delete a pod as a person does, and do not wait for its end."""
    kubectl("delete", "pod", pod, f"--namespace={namespace}", "--wait=false", *options)


def evict(namespace: str, pod: str) -> None:
    """Evict a pod as a node that is drained does."""
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": namespace},
    }
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
    kubectl("create", f"--raw={path}", "--filename=-", given=json.dumps(eviction))


@contextlib.contextmanager
def scaled_to_nothing(namespace: str, workload: str) -> Iterator[None]:
    """Have no pod of a Deployment or StatefulSet for a block, then one again."""
    found = get(workload, f"--namespace={namespace}")
    labels = found["spec"]["selector"]["matchLabels"]
    selector = "--selector=" + ",".join(f"{key}={value}" for key, value in labels.items())
    kubectl("scale", workload, "--replicas=0", f"--namespace={namespace}")
    try:
        until(
            f"{workload} has no pod",
            lambda: not items("pods", selector, f"--namespace={namespace}"),
        )
        yield
    finally:
        kubectl("scale", workload, "--replicas=1", f"--namespace={namespace}")
        words = (workload, f"--namespace={namespace}", "--timeout=170s")
        kubectl("rollout", "status", *words, seconds=180.0)


@contextlib.contextmanager
def held(program: str) -> Iterator[None]:
    """Have a program of the node stopped for a block; only `make cluster` has such a switch."""
    file = HOLD / program
    file.touch()
    try:
        until(f"{program} is down", lambda: not _pid(program))
        yield
    finally:
        file.unlink()
        until(f"{program} runs again", lambda: _pid(program))
        until("the API server is ready", lambda: kubectl("get", "--raw=/readyz") == "ok")


def _pid(program: str) -> int:
    pid: int = json.loads((CLUSTER / "status.json").read_text())[program]["pid"]
    return pid


def lasting(check: Callable[[], None], seconds: float = AWAY_SECONDS) -> None:
    """Let a fault last, and check all the while."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        check()
        time.sleep(0.5)
