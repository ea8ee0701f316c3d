"""What every command talks to: the platform, the ledger and the registry of one installation."""

import os
from pathlib import Path

import msgspec

from watchkeeper.contracts.settings import read_settings
from watchkeeper.ledger import Ledger
from watchkeeper.platforms import Endpoints, Platform, PlatformError, open_platform
from watchkeeper.registry import Registry


class Settings(msgspec.Struct, frozen=True):
    """``WATCHKEEPER_HOME`` holds the state of a local system; ``WATCHKEEPER_PLATFORM`` names
    another platform than that one; ``WATCHKEEPER_MODELS`` lists the models, as JSON;
    ``WATCHKEEPER_LEDGER_URL`` names the ledger where the platform does not.
    """

    home: Path = Path(".watchkeeper")
    platform: str = ""
    ledger_url: str = ""
    models: tuple[str, ...] = ("ai4i-failure", "warranty-risk")


class UnknownModelError(ValueError):
    """The installation has no model of that name."""


class Installation(msgspec.Struct, frozen=True):
    """One installed system."""

    platform: Platform
    ledger: Ledger
    registry: Registry
    endpoints: Endpoints
    models: tuple[str, ...]

    def meant(self, name: str) -> tuple[str, ...]:
        """Return the model of that name, or all where none is named.

        Raises:
            UnknownModelError: there is none of that name.
        """
        if name and name not in self.models:
            raise UnknownModelError(f"no model {name!r} here; there is {', '.join(self.models)}")
        return (name,) if name else self.models


def read_cli_settings() -> Settings:
    """Read the settings; the home becomes an absolute path."""
    given = {name: value for name, value in os.environ.items() if value}  # empty is the default
    settings = read_settings(Settings, given)
    return msgspec.structs.replace(settings, home=settings.home.resolve())


def local_home() -> Path:
    """Return the home of the local system, for what is done with that one only.

    Raises:
        PlatformError: the environment names another platform.
    """
    settings = read_cli_settings()
    if settings.platform and settings.platform != f"local:{settings.home}":
        raise PlatformError(
            f"this is for the local system, and WATCHKEEPER_PLATFORM is {settings.platform}; what "
            "is on a cluster comes and goes with 'helm install', 'upgrade' and 'uninstall'"
        )
    return settings.home


def open_installation() -> Installation:
    """Connect to the system that the environment names.

    Raises:
        PlatformError: there is none.
    """
    settings = read_cli_settings()
    platform = open_platform(settings.platform or f"local:{settings.home}")
    endpoints = platform.endpoints()
    return Installation(
        platform=platform,
        ledger=Ledger(settings.ledger_url or endpoints.ledger),
        registry=Registry(endpoints.mlflow),  # whatever MLflow the user's shell may name
        endpoints=endpoints,
        models=tuple(endpoints.hosts) or settings.models,
    )
