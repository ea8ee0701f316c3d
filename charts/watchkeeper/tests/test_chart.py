"""The chart: what it refuses, and that its copies of the code's own files are true.

Needs helm on PATH, as `make cluster` builds it.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

CHART = Path(__file__).parents[1]
KUBE = CHART.parents[1] / "core" / "src" / "watchkeeper" / "platforms" / "kube"
NAMED = ["--set", "models.ai4i-failure.source.secretName=plant"]
BAD = {
    "typo=1": "additional properties 'typo' not allowed",
    "models.Bad_Name.replicas=1": "'Bad_Name' does not match pattern",
    "models.pump.replicass=1": "'/models/pump': additional properties 'replicass' not allowed",
    "models.pump.replicas=0": "'/models/pump/replicas': minimum: got 0, want 1",
    "models.pump.schedule=often": "'/models/pump/schedule': 'often' does not match pattern",
    "models.pump.policies.rollout.on_no_traffic=wait": "must be one of 'extend', 'abort'",
    "models.pump.policies.drift.windows=5": "additional properties 'windows' not allowed",
    "images.pullPolicy=Sometimes": "must be one of 'IfNotPresent', 'Always', 'Never'",
    "gateway.port=99999": "'/gateway/port': maximum: got 99,999, want 65,535",
    "gateway.create=false": "gateway.existing.name: name your Gateway",
    "mlflow.enabled=false": "mlflow.url: name your MLflow",
    "postgresql.enabled=false": "give secrets.existing",
}

pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on PATH")


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["helm", *arguments], capture_output=True, text=True, check=False)


def test_helm_finds_nothing_wrong_with_it() -> None:
    linted = helm("lint", "--strict", str(CHART), *NAMED)
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize("value", BAD)
def test_a_value_that_cannot_be_is_refused_in_words(value: str) -> None:
    rendered = helm("template", "watchkeeper", str(CHART), *NAMED, "--set", value)
    assert rendered.returncode != 0
    assert BAD[value] in rendered.stderr


@pytest.mark.parametrize("name", ["roles.yaml", "policy.yaml", "leases.yaml"])
def test_access_is_what_the_code_is_tested_with(name: str) -> None:
    ours, theirs = CHART / "files" / name, KUBE / name
    assert ours.read_text() == theirs.read_text(), f"cp {theirs} {ours}"
