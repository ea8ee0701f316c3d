"""Offline predictions of versions, made in the training image in a pod of the cluster."""

from kube import apply, get, kubectl

from watchkeeper.demo.messages import Answer
from watchkeeper.demo.offline_comparison import differing_answers, rows_by_version

ROWS, PREDICTIONS = "/tmp/rows.json", "/tmp/offline.json"  # noqa: S108 - in the pod
SLEEP = "import threading; threading.Event().wait()"


def wrong_answers(answers: list[Answer], model: str, namespace: str) -> list[Answer]:
    """Return the answers that differ from the offline prediction of their version."""
    _ensure_pod(model, namespace)
    pod = ("exec", "--stdin", f"offline-{model}", f"--namespace={namespace}", "--")
    # The image for training has no shell.
    write = f"import sys; open({ROWS!r}, 'w').write(sys.stdin.read())"
    kubectl(*pod, "python", "-c", write, given=rows_by_version(answers).decode())
    command = ("python", "-m", "watchkeeper.training.offline", model, ROWS, PREDICTIONS)
    kubectl(*pod, *command, seconds=240.0)
    read = f"print(open({PREDICTIONS!r}).read(), end='')"
    return differing_answers(answers, kubectl(*pod, "python", "-c", read).encode())


def _ensure_pod(model: str, namespace: str) -> None:
    """Create a pod like that of a training run, which only sleeps."""
    name = f"offline-{model}"
    if get("pod", name, f"--namespace={namespace}"):
        return
    job = get("cronjob", f"{model}-training", f"--namespace={namespace}")["spec"]["jobTemplate"]
    template = job["spec"]["template"]
    container, *others = template["spec"]["containers"]
    container = {**container, "command": ["python", "-c", SLEEP], "args": []}
    # Only the pods of a Job have the label that this variable needs.
    container["env"] = [each for each in container["env"] if each["name"] != "WATCHKEEPER_RUN"]
    metadata = {"name": name, "namespace": namespace, "labels": template["metadata"]["labels"]}
    spec = {**template["spec"], "containers": [container, *others]}
    spec["terminationGracePeriodSeconds"] = 1
    apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    words = (f"pod/{name}", f"--namespace={namespace}", "--timeout=100s")
    kubectl("wait", "--for=condition=Ready", *words, seconds=110.0)
