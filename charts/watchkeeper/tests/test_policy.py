"""What the admission policy compares a sidecar's Jobs with is the template of the CronJob."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[1]
FILES = ("training", "access")
MODELS = {"ai4i-failure": "plant", "warranty-risk": "warranty-risk-source"}
ODD = {
    "training": {"backoffLimit": 0, "keepSeconds": 2592000, "codeVersion": 'a "<b>" \\ é'},
    "images": {"pullPolicy": "Always", "pullSecrets": [{"name": "keys"}]},
    "models": {
        "ai4i-failure": {
            "source": {"secretName": "plant"},
            "trainingResources": {"requests": {"cpu": 0.5}, "limits": {"memory": "8Gi"}},
        },
        "warranty-risk": {},
    },
}

pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on PATH")


def rendered(folder: Path, values: dict[str, Any]) -> list[dict[str, Any]]:
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    shown = [f"--show-only=templates/{name}.yaml" for name in FILES]
    words = ["helm", "template", "watchkeeper", str(CHART), "--namespace=ours", *shown]
    text = subprocess.run([*words, f"--values={file}"], capture_output=True, check=True).stdout
    return [document for document in yaml.safe_load_all(text) if document]


def literal(expression: str) -> Any:
    """Read a literal of CEL: but for dyn(...) it is spelt as JSON, and as YAML."""
    texts = re.split(r'("(?:[^"\\]|\\.)*")', expression)
    texts[::2] = [re.sub(r"dyn\(|\)", "", text) for text in texts[::2]]
    return yaml.safe_load("".join(texts))


@pytest.mark.parametrize("values", [ODD, {"models": {name: {} for name in MODELS}}])
def test_the_policy_wants_what_the_template_says(tmp_path: Path, values: dict[str, Any]) -> None:
    found = rendered(tmp_path, values)
    for model in MODELS:
        (policy,) = (
            one
            for one in found
            if one["kind"] == "ValidatingAdmissionPolicy"
            and one["metadata"]["name"] == f"watchkeeper-ours-{model}"
        )
        (template,) = (
            one["spec"]["jobTemplate"]
            for one in found
            if one["kind"] == "CronJob" and one["metadata"]["name"] == f"{model}-training"
        )
        variables = {each["name"]: each["expression"] for each in policy["spec"]["variables"]}
        assert literal(variables["wanted"]) == template["spec"]
        assert "${" not in str(policy)
