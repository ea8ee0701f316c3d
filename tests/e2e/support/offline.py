"""What a version should answer, from the training image's own command, in a pod beside its Jobs."""

import json
from typing import Any

from kube import apply, get, kubectl

from watchkeeper.demo.checking import same
from watchkeeper.demo.sender import Answer

ROWS, ANSWERS = "/tmp/rows.json", "/tmp/answers.json"  # noqa: S108 - the pod's own


def wrong_answers(answers: list[Answer], model: str, namespace: str) -> list[Answer]:
    """Return the answers that their version would not give offline."""
    _have_pod(model, namespace)
    wrong = []
    for version in sorted({answer.version for answer in answers}):
        mine = [answer for answer in answers if answer.version == version]
        truth = _offline(mine, model, version, namespace)
        wrong += [
            answer
            for place, answer in enumerate(mine)
            if not same(answer.outputs, {name: values[place] for name, values in truth.items()})
        ]
    return wrong


def _offline(
    answers: list[Answer], model: str, version: int, namespace: str
) -> dict[str, list[Any]]:
    columns = {name: [answer.inputs[name] for answer in answers] for name in answers[0].inputs}
    pod = ("exec", "--stdin", f"offline-{model}", f"--namespace={namespace}", "--")
    kubectl(*pod, "sh", "-c", f"cat > {ROWS}", given=json.dumps(columns))
    command = ("python", "-m", "watchkeeper.training.offline", model, str(version), ROWS, ANSWERS)
    kubectl(*pod, *command, seconds=120.0)
    truth: dict[str, list[Any]] = json.loads(kubectl(*pod, "cat", ANSWERS))
    return truth


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
