"""The chart: what it refuses, and that its copies of the code's own files are true.

Needs helm on PATH, as `make cluster` builds it.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHART = Path(__file__).parents[1]
KUBE = CHART.parents[1] / "core" / "src" / "watchkeeper" / "platforms" / "kube"
NAMED = ["--set", "models.ai4i-failure.source.secretName=plant"]
BAD = {
    "typo=1": "additional properties 'typo' not allowed",
    "networkPolicies.ledger=null": "'/networkPolicies': missing property 'ledger'",
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
    "secrets.existing=mine": "secrets.existingTraining: name the Secret of the training namespace",
    "models.pump.policies.answer.out_of_rang=flag": "properties 'out_of_rang' not allowed",
    "models.pump.policies.answer.out_of_range=ignore": "must be one of 'refuse', 'flag'",
    "models.pump.resources.limits.memory=2GB": "limits/memory': '2GB' does not match pattern",
    "mlflow.artifacts.destination=bucket": "artifacts/destination': 'bucket' does not match",
    "mlflow.auth.user=me": "'/mlflow/auth': additional properties 'user' not allowed",
    "networkPolicies.gateways.x=1": "'/networkPolicies': additional properties 'gateways' not",
    "networkPolicies.gateway.podSelectr.a=b": "gateway': additional properties 'podSelectr' not",
    "networkPolicies.dns.ipBlock.cidr=10.0.0.1/32": "dns': additional properties 'ipBlock' not",
    "networkPolicies.dns.podSelector.app=dns": "podSelector': additional properties 'app' not",
    "networkPolicies.apiServer.cidr=10.0.0.1": "cidr': '10.0.0.1' does not match pattern",
    "networkPolicies.apiServer.ports={0}": "ports/0': minimum: got 0, want 1",
    "networkPolicies.source[0].too=1": "source/0': additional properties 'too' not allowed",
    "networkPolicies.source[0].to[0].ipBlock.cidr=10.1.2.3": "'10.1.2.3' does not match pattern",
    "networkPolicies.ledger[0].ports[0].protocol=HTTP": "must be one of 'TCP', 'UDP', 'SCTP'",
    "auth.client.mode=none": "'/auth': additional properties 'client' not allowed",
    "auth.clients.mode=basic": "must be one of 'none', 'apiKey', 'jwt'",
    "auth.clients.mode=apiKey": "name at least one Secret with a key for each client",
    "auth.clients.mode=jwt": "auth.clients.jwt.audiences: name at least one",
    "auth.clients.jwt.audience=me": "'/auth/clients/jwt': additional properties 'audience' not",
    "auth.clients.jwt.jwksUri=jwks": "jwksUri': 'jwks' does not match pattern",
    "auth.clients.apiKey.headers={x api key}": "headers/0': 'x api key' does not match pattern",
    "monitoring.podMonitor=true": "'/monitoring': additional properties 'podMonitor' not allowed",
    "monitoring.rules=1": "'/monitoring/rules': got number, want boolean",
    "monitoring.interval=30": "'/monitoring/interval': got number, want string",
    "monitoring.labels.release.name=x": "'/monitoring/labels/release': got object, want string",
    "monitoring.prometheus.namespace=x": "prometheus': additional properties 'namespace' not",
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


def test_models_without_any_below_are_asked_for() -> None:
    rendered = helm("template", "watchkeeper", str(CHART), "--set", "models=null")
    assert "missing property 'models'" in rendered.stderr


def test_secrets_are_no_part_of_the_release() -> None:
    """As a part of it, a rollback would bring back passwords that have been changed since."""
    assert "kind: Secret\n" in helm("template", "watchkeeper", str(CHART), *NAMED).stdout
    assert "kind: Secret\n" not in helm("template", "w", str(CHART), *NAMED, "--no-hooks").stdout


def test_no_place_of_the_values_takes_unknown_names() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    # Helm's own, and what Kubernetes has as a list of objects
    del schema["properties"]["global"], schema["definitions"]["resources"]["properties"]["claims"]
    assert [path for path, node in _objects(schema, "") if "additionalProperties" not in node] == []


@pytest.mark.parametrize("name", ["roles.yaml", "policy.yaml", "leases.yaml"])
def test_access_is_what_the_code_is_tested_with(name: str) -> None:
    ours, theirs = CHART / "files" / name, KUBE / name
    assert ours.read_text() == theirs.read_text(), f"cp {theirs} {ours}"


def _objects(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield path, node
        for key, value in node.items():
            yield from _objects(value, f"{path}/{key}")
