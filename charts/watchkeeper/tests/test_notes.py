"""The notes after an install warn of values that are risky or incomplete, and of no others."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cluster import KUBECONFIG, kubectl

CHART = Path(__file__).parents[1]
# Values without any reason for a warning.
SOUND = {
    "models.pump.source.secretName": "plant",
    "gateway.tls.secretName": "tls",
    "auth.clients.mode": "apiKey",
    "auth.clients.apiKey.secretNames": "{keys}",
    "networkPolicies.source[0].ports[0].port": "5432",
    "networkPolicies.ledger[0].ports[0].port": "5432",
    "postgresql.enabled": "false",
    "secrets.existing": "credentials",
    "secrets.existingTraining": "credentials",
    "tls.issuer.name": "ours",
}
# For each of these values: the value to set instead, if any, and the warning.
RISKY = {
    "models.pump.source.secretName": ("models.pump.replicas=1", "pump has no source"),
    "gateway.tls.secretName": ("", "The Gateway has no TLS"),
    "auth.clients.mode": ("", "The Gateway authenticates no clients"),
    "networkPolicies.source[0].ports[0].port": (
        "",
        "until networkPolicies has egress rules for them: source.",
    ),
    "networkPolicies.ledger[0].ports[0].port": (
        "",
        "until networkPolicies has egress rules for them: ledger.",
    ),
    "postgresql.enabled": ("", "Ledger and registry are in the PostgreSQL of this release"),
    "highAvailability": ("highAvailability=true", "highAvailability does not include MLflow"),
    "tls.issuer.name": ("", "not encrypted: to MLflow, to the servers."),
    "mlflow.auth.enabled": ("mlflow.auth.enabled=false", "MLflow requires no password"),
    "mlflow.artifacts.destination": (
        "mlflow.artifacts.destination=s3://bucket/mlflow",
        "until networkPolicies has egress rules for them: artifacts.",
    ),
}

pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on PATH")


def warnings(*settings: str, dry_run: str = "client") -> list[str]:
    """Return the first line of each warning in the notes; "server" reads from the cluster."""
    done = subprocess.run(
        ["helm", "install", "watchkeeper", CHART, f"--dry-run={dry_run}", *settings],
        env={**os.environ, "KUBECONFIG": KUBECONFIG} if dry_run == "server" else None,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _, _, notes = done.stdout.partition("NOTES:\n")
    return [line for line in notes.splitlines() if line.startswith("! ")]


def sound(without: str = "") -> list[str]:
    return [f"--set={name}={value}" for name, value in SOUND.items() if name != without]


def test_sound_values_cause_no_warning() -> None:
    assert warnings(*sound()) == []


@pytest.mark.parametrize("name", RISKY)
def test_a_risky_value_causes_one_warning(name: str) -> None:
    instead, expected = RISKY[name]
    (warning,) = warnings(*sound(without=name), *([f"--set={instead}"] if instead else []))
    assert expected in warning


def test_a_secret_that_is_missing_in_the_cluster_causes_a_warning(namespace: str) -> None:
    missing = f"! pump cannot be trained yet: there is no Secret plant in namespace {namespace}"
    where = (f"--namespace={namespace}", f"--set=training.namespace={namespace}")
    # With Secrets of their own, people may not read them; tls.issuer needs CRDs of cert-manager.
    left_out = ("postgresql", "secrets", "tls")
    values = [each for each in sound() if not each.removeprefix("--set=").startswith(left_out)]
    words = (*where, "--set=training.createNamespace=false", *values)
    assert any(line.startswith(missing) for line in warnings(*words, dry_run="server"))
    for name in ("plant", "keys"):
        kubectl("create", "secret", "generic", name, "--from-literal=url=x", where[0])
    assert not any("there is no Secret" in each for each in warnings(*words, dry_run="server"))


def test_values_without_a_model_cause_a_warning() -> None:
    assert "! The values contain no model: add one to models." in warnings()
