"""The chart rejects invalid values, and its copies of files of the code are current.

Needs helm on the PATH; `make cluster` builds it.
"""

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from rendering import CHART, helm

KUBE = CHART.parents[1] / "platforms" / "src" / "watchkeeper" / "platforms" / "kube"
VALID = ["--set", "models.pump.source.secretName=plant"]
INVALID = {
    "typo=1": "additional properties 'typo' not allowed",
    "networkPolicies.ledger=null": "'/networkPolicies': missing property 'ledger'",
    "models.Bad_Name.replicas=1": "'Bad_Name' does not match pattern",
    "models.pump.replicass=1": "'/models/pump': additional properties 'replicass' not allowed",
    "models.pump.replicas=0": "'/models/pump/replicas': minimum: got 0, want 1",
    "models.pump.schedule=often": "'/models/pump/schedule': 'often' does not match pattern",
    "models.pump.policies.rollout.on_no_traffic=wait": "must be one of 'extend', 'abort'",
    "models.pump.policies.drift.windows=5": "additional properties 'windows' not allowed",
    "models.pump.policies.rollout.steps={50,10}": "steps must rise, and 10 follows 50",
    "rollout.policy.steps={10,25,20}": "rollout.policy.steps: the steps must rise, and 20 follows",
    "images.pullPolicy=Sometimes": "must be one of 'IfNotPresent', 'Always', 'Never'",
    "gateway.port=99999": "'/gateway/port': maximum: got 99,999, want 65,535",
    "gateway.create=false": "gateway.existing.name: name your Gateway",
    "mlflow.replicas=2": "mlflow.replicas is 2, but its files are on a volume that one node can",
    "mlflow.replicas=0": "'/mlflow/replicas': minimum: got 0, want 1",
    "highAvailability=2": "'/highAvailability': got number, want boolean",
    "postgresql.backup.keep=0": "'/postgresql/backup/keep': minimum: got 0, want 1",
    "postgresql.backup.schedule=daily": "backup/schedule': 'daily' does not match pattern",
    "postgresql.backup.kept=1": "'/postgresql/backup': additional properties 'kept' not allowed",
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
    "tls.mode=secrets": "'/tls': additional properties 'mode' not allowed",
    "tls.issuer.kind=": "'/tls/issuer/kind': '' does not match pattern",
    "tls.secrets.postgresql=a": "'/tls/secrets': additional properties 'postgresql' not allowed",
    "tls.secrets.mlflow=a": "tls.secrets.database is empty, so one of MLflow and PostgreSQL would",
    "tls.secrets.database=a": "tls.secrets.mlflow is empty, so one of MLflow and PostgreSQL would",
    "tls.secrets.mlflow=a,tls.issuer.name=b": "tls.secrets.mlflow is a, but tls.issuer gives",
    "tls.secrets.servers=a,tls.issuer.name=b": "tls.secrets.servers is a, but tls.issuer gives",
    "tls.secrets.mlflow=a,mlflow.enabled=false,mlflow.url=http://m": "of an MLflow that has no TLS",
    "auth.client.mode=none": "'/auth': additional properties 'client' not allowed",
    "auth.clients.mode=basic": "must be one of 'none', 'apiKey', 'jwt'",
    "auth.clients.mode=apiKey": "name at least one Secret with a key for each client",
    "auth.clients.mode=jwt": "auth.clients.jwt.audiences: name at least one",
    "auth.clients.jwt.audience=me": "'/auth/clients/jwt': additional properties 'audience' not",
    "auth.clients.jwt.jwksUri=jwks": "jwksUri': 'jwks' does not match pattern",
    "auth.clients.apiKey.headers={x api key}": "headers/0': 'x api key' does not match pattern",
    "monitoring.podMonitor=true": "'/monitoring': additional properties 'podMonitor' not allowed",
    "fullnameOverride=4line": "'4line' does not match pattern",
    "fullnameOverride=Line": "'Line' does not match pattern",
    "nameOverride=a.b": "'a.b' does not match pattern",
    "podSecurityContext.runAsUser=0": "'/podSecurityContext/runAsUser': minimum: got 0, want 1",
    "podSecurityContext.runAsUser=null": "podSecurityContext.runAsUser: the embedded PostgreSQL",
    "podSecurityContext.privileged=true": "additional properties 'privileged' not allowed",
    "rollout.tolerations[0].effect=Never": "must be one of 'NoSchedule', 'PreferNoSchedule'",
    "training.nodeSelector.pool.name=x": "nodeSelector/pool': got object, want string",
    "serving.affinity.podAfinity.x=1": "affinity': additional properties 'podAfinity' not",
    "cli.extraEnv[0].name=X": "'/cli/extraEnv/0': missing property 'valueFrom'",
    "mlflow.extraEnv[0].value=1": "missing property 'name'",
    "monitoring.rules=1": "'/monitoring/rules': got number, want boolean",
    "monitoring.interval=30": "'/monitoring/interval': got number, want string",
    "monitoring.labels.release.name=x": "'/monitoring/labels/release': got object, want string",
    "monitoring.prometheus.namespace=x": "prometheus': additional properties 'namespace' not",
}

pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on PATH")


def test_helm_lint_passes() -> None:
    linted = helm("lint", "--strict", str(CHART), *VALID)
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize("value", INVALID)
def test_an_invalid_value_is_rejected_with_its_path(value: str) -> None:
    done = helm("template", "watchkeeper", str(CHART), *VALID, "--set", value)
    assert done.returncode != 0
    assert INVALID[value] in done.stderr


def test_a_namespace_that_is_too_long_for_kserve_is_rejected() -> None:
    words = ("template", "watchkeeper", str(CHART), "--set", f"models.{'m' * 30}.replicas=1")
    assert helm(*words, "--namespace", "n" * 18).returncode == 0
    done = helm(*words, "--namespace", "n" * 19)
    assert done.returncode != 0
    assert "choose a namespace of at most 18 characters" in done.stderr


def test_models_must_not_be_null() -> None:
    done = helm("template", "watchkeeper", str(CHART), "--set", "models=null")
    assert "missing property 'models'" in done.stderr


def test_the_secret_is_a_hook_and_not_a_part_of_the_release() -> None:
    """As a part of the release, `helm rollback` would restore old passwords."""
    assert "kind: Secret\n" in helm("template", "watchkeeper", str(CHART), *VALID).stdout
    assert "kind: Secret\n" not in helm("template", "w", str(CHART), *VALID, "--no-hooks").stdout


def test_no_object_of_the_schema_accepts_unknown_keys() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    # Values of Helm itself, and objects of Kubernetes
    del schema["properties"]["global"], schema["definitions"]["resources"]["properties"]["claims"]
    assert [path for path, node in _objects(schema, "") if "additionalProperties" not in node] == []


@pytest.mark.parametrize("name", ["roles.yaml", "policy.yaml", "leases.yaml", "limits.yaml"])
def test_a_file_is_an_exact_copy_of_that_of_the_code(name: str) -> None:
    copy, original = CHART / "files" / name, KUBE / name
    assert copy.read_text() == original.read_text(), f"run: cp {original} {copy}"


def _objects(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield path, node
        for key, value in node.items():
            yield from _objects(value, f"{path}/{key}")
