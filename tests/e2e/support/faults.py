"""Faults of a cluster, injected and undone again."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kube import CLUSTER, get, items, kubectl, wait_until

OUTAGE_SECONDS = 20.0
HOLD = CLUSTER / "hold"


def kill_container(namespace: str, pod: str, container: str) -> None:
    """Kill the first process of a container with SIGKILL, and wait until it is restarted."""
    before = _status(namespace, pod, container)
    _, _, identity = before["containerID"].partition("://")
    os.kill(_first_process(identity), signal.SIGKILL)
    wait_until(
        f"{container} of {pod} is restarted",
        lambda: _status(namespace, pod, container)["restartCount"] > before["restartCount"],
    )


def _status(namespace: str, pod: str, container: str) -> dict[str, Any]:
    status = get("pod", pod, f"--namespace={namespace}")["status"]
    both = [*status.get("initContainerStatuses", []), *status["containerStatuses"]]
    found: dict[str, Any] = next(each for each in both if each["name"] == container)
    return found


def _first_process(container: str) -> int:
    """Return the pid of a container's first process, in the pid namespace of this machine."""
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and container in (folder / "cgroup").read_text():
                status = (folder / "status").read_text()
                ids = next(line for line in status.splitlines() if line.startswith("NSpid:"))
                if ids.split()[-1] == "1":
                    return int(folder.name)
    raise AssertionError(f"container {container} has no process on this machine")


def delete_pod(namespace: str, pod: str, *options: str) -> None:
    """Delete a pod without waiting for its end."""
    kubectl("delete", "pod", pod, f"--namespace={namespace}", "--wait=false", *options)


def evict(namespace: str, pod: str) -> None:
    """Evict a pod, as the drain of a node does."""
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": namespace},
    }
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
    kubectl("create", f"--raw={path}", "--filename=-", given=json.dumps(eviction))


@contextlib.contextmanager
def scaled_to_zero(namespace: str, workload: str) -> Iterator[None]:
    """Scale a Deployment or StatefulSet to zero pods for a block, then to one."""
    found = get(workload, f"--namespace={namespace}")
    labels = found["spec"]["selector"]["matchLabels"]
    selector = "--selector=" + ",".join(f"{key}={value}" for key, value in labels.items())
    kubectl("scale", workload, "--replicas=0", f"--namespace={namespace}")
    try:
        wait_until(
            f"{workload} has no pod",
            lambda: not items("pods", selector, f"--namespace={namespace}"),
        )
        yield
    finally:
        kubectl("scale", workload, "--replicas=1", f"--namespace={namespace}")
        words = (workload, f"--namespace={namespace}", "--timeout=170s")
        kubectl("rollout", "status", *words, seconds=180.0)


@contextlib.contextmanager
def stopped(program: str) -> Iterator[None]:
    """Stop a program of the node for a block. Only the cluster of `make cluster` can do that."""
    file = HOLD / program
    file.touch()
    try:
        wait_until(f"{program} is down", lambda: not _pid(program))
        yield
    finally:
        file.unlink()
        wait_until(f"{program} runs again", lambda: _pid(program))
        wait_until("the API server is ready", lambda: kubectl("get", "--raw=/readyz") == "ok")


def _pid(program: str) -> int:
    pid: int = json.loads((CLUSTER / "status.json").read_text())[program]["pid"]
    return pid


def check_during(check: Callable[[], None], seconds: float = OUTAGE_SECONDS) -> None:
    """Repeat a check for the duration of a fault."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        check()
        time.sleep(0.5)
