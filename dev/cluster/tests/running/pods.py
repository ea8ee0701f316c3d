"""Pods for tests that pass the restricted Pod Security Standard, and waiting for them."""

from waiting import wait_for

from watchkeeper.cluster.kubernetes import Kubernetes, Object

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


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

    wait_for(lambda: phase() in ("Succeeded", "Failed"), what=f"pod {name} ended")
    logs = kubectl.kubectl("logs", name, "--namespace", namespace)
    assert phase() == "Succeeded", logs
    return logs
