"""Pods for tests that pass the restricted Pod Security Standard, and waiting for them."""

import time
from collections.abc import Callable

from watchkeeper.cluster.kubernetes import Kubernetes, Object

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def eventually(what: str, holds: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)


def pod(name: str, image: str, args: list[str], **more: object) -> Object:
    container = {
        "name": "main",
        "image": image,
        "args": args,
        "securityContext": RESTRICTED,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    spec = {"containers": [container], "restartPolicy": "Never", **more}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": spec,
    }


def run(kubectl: Kubernetes, namespace: str, described: Object) -> str:
    """Let a pod run to its end and return what it printed; it has to succeed."""
    described["metadata"]["namespace"] = namespace
    name = described["metadata"]["name"]
    kubectl.apply([described])

    def phase() -> str:
        found = kubectl.get(f"pod/{name}", "--namespace", namespace) or {}
        text: str = found.get("status", {}).get("phase", "")
        return text

    eventually(f"pod {name} ended", lambda: phase() in ("Succeeded", "Failed"))
    logs = kubectl.kubectl("logs", name, "--namespace", namespace)
    assert phase() == "Succeeded", logs
    return logs
