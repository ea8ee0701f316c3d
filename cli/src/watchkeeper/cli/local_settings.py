"""Settings of the local system, checked before a process starts."""

import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from watchkeeper.cli.system import CliSettings
from watchkeeper.core.names import check_model_name, declared_models
from watchkeeper.core.persisted import effective_variables, read_persisted
from watchkeeper.core.policies import DriftPolicy, RetentionPolicy, RolloutPolicy, override
from watchkeeper.core.projects import Project, ProjectError, is_folder, read_project
from watchkeeper.core.settings import PREFIX, SettingsError, read_settings
from watchkeeper.core.spool import replace_file
from watchkeeper.ledger.errors import check_url
from watchkeeper.platforms.local.api_keys import read_keys

SIGNING_KEY = "signing-key"
FEEDBACK_TOKEN = "feedback-token"  # noqa: S105  (the name of its file)
GATEWAY_TOKEN = "gateway/token"  # noqa: S105  (the same; the server reads the whole folder)
# The folder of each component's environment, below ``components``. Most components share the
# environment at the root.
ENVIRONMENTS = {
    "mlflow": "images/mlflow",
    "training": ".",
    "serving": "serving",
    "drift": "drift",
    "rollout": ".",
}
# Variables that a component gets from the user unchanged. A component gets its other settings from
# the system. A test compares this table, and the reference page, with the components' settings.
PASSED_ON = {
    "server": (
        *("ANSWER_POLICY", "SYNTHETIC_CLIENTS", "SPOOL_BYTES", "BODY_BYTES", "BODY_SECONDS"),
        *("INITIALIZE_SECONDS", "DRAIN_SECONDS", "STOP_SECONDS", "QUEUE_SECONDS", "CONNECTIONS"),
    ),
    "sidecar": ("DRIFT_POLICY", "RETENTION", "POLL_SECONDS", "WATCH_SECONDS"),
    "training": tuple(
        f"SNAPSHOTS_{name}" for name in ("ENDPOINT", "REGION", "ACCESS_KEY", "SECRET_KEY")
    ),
    "rollout": ("ROLLOUT_POLICY", "ROLLOUT_POLICIES", "TURN_SECONDS", "REMOVAL_SECONDS"),
}


class LocalSettings(msgspec.Struct, frozen=True):
    """Settings of the local system. Each field is ``WATCHKEEPER_<FIELD>``.

    A port in use is replaced by a free one. ``components`` is the folder with the components and
    their environments, by default the checkout that this program belongs to. ``source_url`` and
    ``ledger_url`` are SQLite files in the home by default, ``snapshots_url`` is a folder there.
    ``api_keys`` is a JSON object with a key
    for each client; empty means that clients need no key.
    """

    source_url: str = ""
    ledger_url: str = ""
    snapshots_url: str = ""
    components: Path = Path(sys.prefix).parent
    code_version: str = ""
    v2_port: int = 8080
    mlflow_port: int = 5000
    operations_port: int = 9090
    rollout_port: int = 9091
    drift_policy: dict[str, Any] = {}
    rollout_policy: dict[str, Any] = {}
    answer_policy: dict[str, Any] = {}
    retention: dict[str, Any] = {}
    api_keys: str = ""

    def python(self, component: str) -> str:
        """Return the interpreter of a component's environment."""
        return str(
            self.components.absolute() / ENVIRONMENTS[component] / ".venv" / "bin" / "python"
        )


class LocalConfiguration(msgspec.Struct, frozen=True):
    """Everything that determines one local system.

    ``projects`` are the folders among the models. ``variables`` are the environment variables
    behind ``models`` and ``settings``. ``persisted`` names those among them that an earlier ``up``
    has stored.
    """

    models: tuple[str, ...]
    settings: LocalSettings
    variables: dict[str, str]
    persisted: tuple[str, ...]
    projects: tuple[Project, ...] = ()


def read_configuration(
    home: Path, models: tuple[str, ...], environ: Mapping[str, str]
) -> LocalConfiguration:
    """Read the configuration from the environment and from earlier times, and check it.

    Args:
        home: the folder of the system.
        models: the models of the command line, or the folders of their projects; empty for those
            of the environment, of the last ``up``, or all declared models.
        environ: the environment variables.

    Raises:
        SettingsError, InvalidNameError: a value cannot be used; the message names it.
    """
    not_empty = {name: value for name, value in environ.items() if value}
    if given := models or read_settings(CliSettings, not_empty).models:
        # The next command may run in another folder.
        names = [str(Path(name).resolve()) if is_folder(name) else name for name in given]
        environ = {**environ, f"{PREFIX}MODELS": msgspec.json.encode(names).decode()}
    known = {field.name.upper() for field in msgspec.structs.fields(LocalSettings)}
    known |= {"MODELS", *(name for passed in PASSED_ON.values() for name in passed)}
    variables = effective_variables(sorted(known), read_persisted(home), environ)
    persisted = tuple(name for name in variables if name not in environ)
    try:
        named, projects = _read_models(variables)
        settings = _read_settings(home, variables)
        in_projects = {model for project in projects for model in project.models}
        _check_declared([name for name in named if name not in in_projects], settings)
    except SettingsError as error:
        causes = [name for name in persisted if name in str(error)]
        if not causes:
            raise
        raise SettingsError(
            f"{error} (stored by an earlier 'up'; {how_to_reset(causes)})"
        ) from error
    return LocalConfiguration(named, settings, variables, persisted, projects)


def needs_keys(home: Path, environ: Mapping[str, str]) -> bool:
    """Return whether clients of the local system need a key.

    Raises:
        SettingsError: the stored settings cannot be read.
    """
    variables = effective_variables(["API_KEYS"], read_persisted(home), environ)
    return bool(read_settings(LocalSettings, variables).api_keys.strip())


def how_to_reset(variables: Sequence[str]) -> str:
    """Say how a stored setting is reset to its default."""
    return f"'{variables[0]}= watchkeeper up' resets it to its default"


def _read_models(variables: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[Project, ...]]:
    """Return the names of the models, and the projects that declare some of them."""
    given = read_settings(CliSettings, variables).models or declared_models()
    if not given:
        raise SettingsError(
            f"{PREFIX}MODELS: no model is declared in this environment; name at least one, or the "
            "folder of its project"
        )
    names: list[str] = []
    projects: list[Project] = []
    for name in given:
        if is_folder(name):
            try:
                projects.append(read_project(Path(name)))
            except ProjectError as error:
                raise SettingsError(f"{PREFIX}MODELS: {error}") from error
            names += projects[-1].models
        else:
            names.append(check_model_name(name))
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise SettingsError(f"{PREFIX}MODELS: the model {twice!r} is named twice")
    return tuple(names), tuple(projects)


def _check_declared(models: Sequence[str], settings: LocalSettings) -> None:
    """Refuse models that no package declares, if training runs in this environment."""
    unknown = [model for model in models if model not in declared_models()]
    if unknown and Path(settings.python("training")).parents[1] == Path(sys.prefix):
        raise SettingsError(
            f"{PREFIX}MODELS: no model {unknown[0]!r} is declared in this environment; declared "
            f"models: {', '.join(declared_models()) or 'none'}"
        )


def _read_settings(home: Path, variables: Mapping[str, str]) -> LocalSettings:
    settings = read_settings(LocalSettings, variables)
    _check_policy("DRIFT_POLICY", DriftPolicy(), settings.drift_policy)
    _check_policy("ROLLOUT_POLICY", RolloutPolicy(), settings.rollout_policy)
    _check_policy("RETENTION", RetentionPolicy(), settings.retention)
    settings = msgspec.structs.replace(
        settings,
        source_url=settings.source_url or f"sqlite:///{home / 'operational.db'}",
        ledger_url=settings.ledger_url or f"sqlite:///{home / 'ledger.db'}",
        snapshots_url=settings.snapshots_url or (home / "snapshots").as_uri(),
    )
    try:
        read_keys(settings.api_keys)
    except ValueError as error:
        raise SettingsError(f"{PREFIX}API_KEYS: {error}") from error
    for name in ("source_url", "ledger_url"):
        try:
            check_url(getattr(settings, name))
        except SettingsError as error:
            raise SettingsError(f"{PREFIX}{name.upper()}: {error}") from error
    for component in ENVIRONMENTS:
        _check_environment(settings, component)
    return settings


def _check_environment(settings: LocalSettings, component: str) -> None:
    if not Path(settings.python(component)).exists():
        raise SettingsError(
            f"{settings.python(component)}: the environment of {component} is missing; "
            f"run 'make environments', or set {PREFIX}COMPONENTS"
        )


def training_python(home: Path, environ: Mapping[str, str]) -> str:
    """Return the interpreter of training, for commands that need no model and no system.

    Raises:
        SettingsError: the environment of training is missing.
    """
    variables = effective_variables(["COMPONENTS"], read_persisted(home), environ)
    settings = read_settings(LocalSettings, variables)
    _check_environment(settings, "training")
    return settings.python("training")


def passed_on(role: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the user's variables that a role gets, by value or by file."""
    names = [PREFIX + name for name in PASSED_ON.get(role, ())]
    wanted = {*names, *(f"{name}_FILE" for name in names)}
    return {name: value for name, value in variables.items() if name in wanted}


def make_secrets(folder: Path) -> None:
    """Create the key that signs prediction ids and the tokens, if they are missing."""
    for name in (SIGNING_KEY, FEEDBACK_TOKEN, GATEWAY_TOKEN):
        path = folder / name
        path.parent.mkdir(exist_ok=True, parents=True, mode=0o700)
        if not path.exists():
            path.touch(mode=0o600)
        if not path.read_text().strip():  # an earlier call may have ended here
            replace_file(path, secrets.token_hex(32).encode())
            path.chmod(0o600)


def _check_policy(name: str, policy: msgspec.Struct, changes: dict[str, Any]) -> None:
    try:
        override(policy, changes)
    except (msgspec.ValidationError, ValueError) as error:
        raise SettingsError(f"{PREFIX}{name}: {error}") from error
