"""What versions should answer, from the training image's own command, in a pod beside its Jobs."""

from kube import apply, get, kubectl

from watchkeeper.demo.checking import questions, unlike
from watchkeeper.demo.sender import Answer

ROWS, TRUTH = "/tmp/rows.json", "/tmp/offline.json"  # noqa: S108 - the pod's own


def wrong_answers(answers: list[Answer], model: str, namespace: str) -> list[Answer]:
    """Return the answers that their version would not give offline."""
    _have_pod(model, namespace)
    pod = ("exec", "--stdin", f"offline-{model}", f"--namespace={namespace}", "--")
    kubectl(*pod, "sh", "-c", f"cat > {ROWS}", given=questions(answers).decode())
    command = ("python", "-m", "watchkeeper.training.offline", model, ROWS, TRUTH)
    kubectl(*pod, *command, seconds=240.0)
    return unlike(answers, kubectl(*pod, "cat", TRUTH).encode())


def _have_pod(model: str, namespace: str) -> None:
    """Make the pod of a training run that does not train."""
    name = f"offline-{model}"
    if get("pod", name, f"--namespace={namespace}"):
        return
    job = get("cronjob", f"{model}-training", f"--namespace={namespace}")["spec"]["jobTemplate"]
    template = job["spec"]["template"]
    container, *others = template["spec"]["containers"]
    container = {**container, "command": ["sleep", "infinity"], "args": []}
    # what only a Job's pods have
    container["env"] = [one for one in container["env"] if one["name"] != "WATCHKEEPER_RUN"]
    metadata = {"name": name, "namespace": namespace, "labels": template["metadata"]["labels"]}
    spec = {**template["spec"], "containers": [container, *others]}
    spec["terminationGracePeriodSeconds"] = 1
    apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    words = (f"pod/{name}", f"--namespace={namespace}", "--timeout=100s")
    kubectl("wait", "--for=condition=Ready", *words, seconds=110.0)
