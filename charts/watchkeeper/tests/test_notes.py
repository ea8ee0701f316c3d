"""The notes after an installation warn of what is odd with it, and of nothing else."""

import shutil
import subprocess
from pathlib import Path

import pytest

CHART = Path(__file__).parents[1]
# As little as one would warn of.
SOUND = {
    "models.pump.source.secretName": "plant",
    "gateway.tls.secretName": "tls",
    "auth.clients.mode": "apiKey",
    "auth.clients.apiKey.secretNames": "{keys}",
    "networkPolicies.source[0].ports[0].port": "5432",
    "networkPolicies.ledger[0].ports[0].port": "5432",
    "postgresql.enabled": "false",
    "secrets.existing": "mine",
    "secrets.existingTraining": "mine",
}
# What else is said instead, nothing at all where it is empty.
ODD = {
    "models.pump.source.secretName": ("models.pump.replicas=1", "pump has no source"),
    "gateway.tls.secretName": ("", "The Gateway speaks no TLS"),
    "auth.clients.mode": ("", "Everybody who reaches the Gateway may ask"),
    "networkPolicies.source[0].ports[0].port": ("", "until networkPolicies names them: source."),
    "networkPolicies.ledger[0].ports[0].port": ("", "until networkPolicies names them: ledger."),
    "postgresql.enabled": ("", "Ledger and registry are in a PostgreSQL of this release"),
    "mlflow.auth.enabled": ("mlflow.auth.enabled=false", "MLflow asks nobody for a password"),
    "mlflow.artifacts.destination": (
        "mlflow.artifacts.destination=s3://bucket/mlflow",
        "until networkPolicies names them: artifacts.",
    ),
}

pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on PATH")


def warnings(*settings: str) -> list[str]:
    """Return what the notes warn of, a line each."""
    said = subprocess.run(
        ["helm", "install", "watchkeeper", CHART, "--dry-run=client", *settings],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    _, _, notes = said.stdout.partition("NOTES:\n")
    return [line for line in notes.splitlines() if line.startswith("! ")]


def sound(but: str = "") -> list[str]:
    return [f"--set={name}={value}" for name, value in SOUND.items() if name != but]


def test_a_sound_installation_is_warned_of_nothing() -> None:
    assert warnings(*sound()) == []


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_told(name: str) -> None:
    instead, told = ODD[name]
    (warning,) = warnings(*sound(but=name), *([f"--set={instead}"] if instead else []))
    assert told in warning


def test_who_names_no_model_is_told_to() -> None:
    assert "! There is no model: name one in models." in warnings()
