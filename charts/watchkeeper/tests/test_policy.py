"""The admission policy compares the Jobs of a sidecar with the template of the CronJob."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import CHART, SCHEDULING

FILES = ("training", "access")
MODELS = {"pump-failure": "plant", "valve-leak": "valve-leak-source"}
MANY = {
    "training": {
        "backoffLimit": 0,
        "keepSeconds": 2592000,
        "codeVersion": 'a "<b>" \\ é',
        **SCHEDULING,
    },
    "images": {"pullPolicy": "Always", "pullSecrets": [{"name": "keys"}]},
    "models": {
        "pump-failure": {
            "source": {"secretName": "plant"},
            "training": {"image": "registry.example.com/pump:1.0"},
            "trainingResources": {"requests": {"cpu": 0.5}, "limits": {"memory": "8Gi"}},
        },
        "valve-leak": {},
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
    """Parse a CEL literal, which is JSON except for dyn(...)."""
    texts = re.split(r'("(?:[^"\\]|\\.)*")', expression)
    texts[::2] = [re.sub(r"dyn\(|\)", "", text) for text in texts[::2]]
    return yaml.safe_load("".join(texts))


@pytest.mark.parametrize("values", [MANY, {"models": {name: {} for name in MODELS}}])
def test_the_policy_contains_the_template(tmp_path: Path, values: dict[str, Any]) -> None:
    objects = rendered(tmp_path, values)
    for model in MODELS:
        (policy,) = (
            each
            for each in objects
            if each["kind"] == "ValidatingAdmissionPolicy"
            and each["metadata"]["name"] == f"watchkeeper.ours.{model}"
        )
        (template,) = (
            each["spec"]["jobTemplate"]
            for each in objects
            if each["kind"] == "CronJob" and each["metadata"]["name"] == f"{model}-training"
        )
        variables = {one["name"]: one["expression"] for one in policy["spec"]["variables"]}
        assert literal(variables["wanted"]) == template["spec"]
        assert "${" not in str(policy)
