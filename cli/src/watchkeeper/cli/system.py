"""The system that a command works on: its platform, its ledger and its registry."""

import os
from pathlib import Path

import msgspec

from watchkeeper.core.names import declared_models
from watchkeeper.core.settings import read_settings
from watchkeeper.ledger import Ledger
from watchkeeper.platforms import Endpoints, Platform, PlatformError, open_platform
from watchkeeper.registry import Registry


class CliSettings(msgspec.Struct, frozen=True):
    """Which system the command line works on. Each field is ``WATCHKEEPER_<FIELD>``.

    ``home`` is the folder of a local system. ``platform`` names a system elsewhere, for example
    ``kube:watchkeeper``. ``ledger_url`` is the URL of the ledger for platforms that do not know it
    (a cluster keeps it in a Secret). ``models`` is a JSON list; an empty one stands for all
    declared models.
    """

    home: Path = Path(".watchkeeper")
    platform: str = ""
    ledger_url: str = ""
    models: tuple[str, ...] = ()


class UnknownModelError(ValueError):
    """The system has no model of that name."""


class System(msgspec.Struct, frozen=True):
    """One system, with a client for each of its parts."""

    platform: Platform
    ledger: Ledger
    registry: Registry
    endpoints: Endpoints
    models: tuple[str, ...]

    def select_models(self, name: str) -> tuple[str, ...]:
        """Return the model ``name``, or all models if ``name`` is empty.

        Raises:
            UnknownModelError: the system has no model of that name.
        """
        if name and name not in self.models:
            raise UnknownModelError(
                f"the system has no model {name!r}; its models are {', '.join(self.models)}"
            )
        return (name,) if name else self.models


def read_cli_settings() -> CliSettings:
    """Read the settings from the environment; ``home`` becomes an absolute path.

    Raises:
        SettingsError: a variable has a value that cannot be used.
    """
    # An empty variable means the default.
    variables = {name: value for name, value in os.environ.items() if value}
    settings = read_settings(CliSettings, variables)
    return msgspec.structs.replace(settings, home=settings.home.resolve())


def local_home() -> Path:
    """Return the folder of the local system, for commands that exist for that system only.

    Raises:
        PlatformError: the environment names another platform.
    """
    settings = read_cli_settings()
    if settings.platform and settings.platform != f"local:{settings.home}":
        raise PlatformError(
            "this command is for the local system, but WATCHKEEPER_PLATFORM is "
            f"{settings.platform}; on a cluster use 'helm install', 'helm upgrade' and "
            "'helm uninstall'"
        )
    return settings.home


def open_system() -> System:
    """Connect to the system that the environment names.

    Raises:
        PlatformError: there is no system.
        SettingsError: a variable has a value that cannot be used.
    """
    settings = read_cli_settings()
    platform = open_platform(settings.platform or f"local:{settings.home}")
    endpoints = platform.endpoints()
    return System(
        platform=platform,
        ledger=Ledger(settings.ledger_url or endpoints.ledger),
        # MLFLOW_TRACKING_URI of the user's shell may name another registry.
        registry=Registry(endpoints.mlflow),
        endpoints=endpoints,
        models=tuple(endpoints.hosts) or settings.models or declared_models(),
    )


def open_model(name: str) -> tuple[System, str]:
    """Connect to the system, and find the one model that a command is for.

    Args:
        name: its name; it may be empty if the system has one model only.

    Raises:
        UnknownModelError: the system has no model of that name, or several and none was named.
        PlatformError: there is no system.
        SettingsError: a variable has a value that cannot be used.
    """
    system = open_system()
    models = system.select_models(name)
    if len(models) != 1:
        raise UnknownModelError(f"name the model; the system has {', '.join(models)}")
    return system, models[0]
