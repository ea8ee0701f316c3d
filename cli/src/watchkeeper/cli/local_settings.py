"""What a person may decide about the local system, checked before anything starts."""

import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from watchkeeper.cli.installation import Settings
from watchkeeper.contracts.kept import in_force, read_kept
from watchkeeper.contracts.names import check_model_name
from watchkeeper.contracts.policies import DriftPolicy, RetentionPolicy, RolloutPolicy, override
from watchkeeper.contracts.settings import PREFIX, SettingsError, read_settings
from watchkeeper.contracts.spool import replace_file
from watchkeeper.platforms.local.clients import read_keys

SIGNING_KEY = "signing-key"
FEEDBACK_TOKEN = "feedback-token"  # noqa: S105  (the name of its file)
COMPONENTS = ("registry", "training", "serving", "drift", "rollout")
# Variables that go on to a component as they are, if the user has set them: all of its settings
# but those that the system gives it. A test compares this, and the manual, with the components.
PASSED_ON = {
    "server": (
        *("ANSWER_POLICY", "SPOOL_BYTES", "BODY_BYTES", "BODY_SECONDS"),
        *("INITIALIZE_SECONDS", "DRAIN_SECONDS", "STOP_SECONDS", "QUEUE_SECONDS", "CONNECTIONS"),
    ),
    "sidecar": ("DRIFT_POLICY", "RETENTION", "POLL_SECONDS", "WATCH_SECONDS"),
    "rollout": ("ROLLOUT_POLICY", "ROLLOUT_POLICIES", "TURN_SECONDS"),
}


class LocalSettings(msgspec.Struct, frozen=True):
    """``WATCHKEEPER_<FIELD>``. Ports are wishes: one in use is replaced by a free one.

    ``components`` is the folder with the components and their environments, by default the
    checkout that this program belongs to. Databases are SQLite files in the home by default.
    ``api_keys``, if there are any, are what clients need: JSON, a key by each client's name.
    """

    source_url: str = ""
    ledger_url: str = ""
    components: Path = Path(sys.prefix).parents[1]
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
        return str(self.components.absolute() / component / ".venv" / "bin" / "python")


class Given(msgspec.Struct, frozen=True):
    """All that is decided about one system: ``variables`` are those behind it, by their names,
    ``kept`` the ones among them that were given to an earlier ``up``.
    """

    models: tuple[str, ...]
    settings: LocalSettings
    variables: dict[str, str]
    kept: tuple[str, ...]


def read_given(home: Path, models: tuple[str, ...], environ: Mapping[str, str]) -> Given:
    """Read the settings, those of earlier times too, and check them before a process starts.

    ``models`` are those that were named, if any were.

    Raises:
        SettingsError, InvalidNameError: something cannot work; the message says what.
    """
    if models:
        environ = {**environ, f"{PREFIX}MODELS": msgspec.json.encode(models).decode()}
    names = {field.name.upper() for field in msgspec.structs.fields(LocalSettings)}
    names |= {"MODELS", *(name for passed in PASSED_ON.values() for name in passed)}
    variables = in_force(sorted(names), read_kept(home), environ)
    kept = tuple(name for name in variables if name not in environ)
    try:
        found, settings = _read_models(variables), _read_settings(home, variables)
    except SettingsError as error:
        blamed = [name for name in kept if name in str(error)]
        if not blamed:
            raise
        raise SettingsError(f"{error} (given to an earlier 'up'; {how_to_drop(blamed)})") from error
    return Given(found, settings, variables, kept)


def how_to_drop(variables: Sequence[str]) -> str:
    """Say how a setting that was kept goes back to its default."""
    return f"'{variables[0]}= watchkeeper up' goes back to the default"


def _read_models(variables: Mapping[str, str]) -> tuple[str, ...]:
    models = read_settings(Settings, variables).models
    if not models:
        raise SettingsError(f"{PREFIX}MODELS: at least one model is needed")
    for model in models:
        check_model_name(model)
    return models


def _read_settings(home: Path, variables: Mapping[str, str]) -> LocalSettings:
    settings = read_settings(LocalSettings, variables)
    _check_policy("DRIFT_POLICY", DriftPolicy(), settings.drift_policy)
    _check_policy("ROLLOUT_POLICY", RolloutPolicy(), settings.rollout_policy)
    _check_policy("RETENTION", RetentionPolicy(), settings.retention)
    settings = msgspec.structs.replace(
        settings,
        source_url=settings.source_url or f"sqlite:///{home / 'operational.db'}",
        ledger_url=settings.ledger_url or f"sqlite:///{home / 'ledger.db'}",
    )
    try:
        read_keys(settings.api_keys)
    except ValueError as error:
        raise SettingsError(f"{PREFIX}API_KEYS: {error}") from error
    for name in ("source_url", "ledger_url"):
        try:
            make_url(getattr(settings, name))
        except ArgumentError as error:
            raise SettingsError(f"{PREFIX}{name.upper()}: {error}") from error
    for component in COMPONENTS:
        if not Path(settings.python(component)).exists():
            raise SettingsError(
                f"{settings.python(component)}: the environment of {component} is missing; "
                f"run 'make environments', or set {PREFIX}COMPONENTS"
            )
    return settings


def passed_on(role: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the user's own variables that a role gets, by value or by file."""
    names = [PREFIX + name for name in PASSED_ON.get(role, ())]
    wanted = {*names, *(f"{name}_FILE" for name in names)}
    return {name: value for name, value in variables.items() if name in wanted}


def make_secrets(folder: Path) -> None:
    """Make the key that signs prediction ids and the token for labels, unless they are there."""
    folder.mkdir(exist_ok=True, mode=0o700)
    for name in (SIGNING_KEY, FEEDBACK_TOKEN):
        path = folder / name
        if not path.exists():
            path.touch(mode=0o600)
        if not path.read_text().strip():  # also after a stop between the two
            replace_file(path, secrets.token_hex(32).encode())
            path.chmod(0o600)


def _check_policy(name: str, policy: msgspec.Struct, changes: dict[str, Any]) -> None:
    try:
        override(policy, changes)
    except (msgspec.ValidationError, ValueError) as error:
        raise SettingsError(f"{PREFIX}{name}: {error}") from error
