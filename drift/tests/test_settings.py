"""Settings of the sidecar."""

from pathlib import Path

from watchkeeper.core.field_docs import undescribed_fields
from watchkeeper.core.settings import read_settings
from watchkeeper.drift.settings import SidecarSettings


def test_every_setting_has_a_description() -> None:
    assert undescribed_fields(SidecarSettings) == []


def test_settings_are_read_from_the_environment() -> None:
    required = {
        "MODEL": "pump-failure",
        "VERSION": "3",
        "MODEL_FOLDER": "/models",
        "SPOOL": "/spool",
        "LEDGER_URL": "sqlite:///ledger.db",
        "PLATFORM": "local:/home",
        "PORT": "8082",
        "DRIFT_POLICY": '{"window": 300}',
        "POLL_SECONDS": "0.25",
    }
    settings = read_settings(
        SidecarSettings, {f"WATCHKEEPER_{name}": value for name, value in required.items()}
    )
    assert settings == SidecarSettings(
        model="pump-failure",
        version=3,
        model_folder=Path("/models"),
        spool=Path("/spool"),
        ledger_url="sqlite:///ledger.db",
        platform="local:/home",
        port=8082,
        drift_policy={"window": 300},
        poll_seconds=0.25,
    )
