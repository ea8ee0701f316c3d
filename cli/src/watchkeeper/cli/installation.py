"""What every command talks to: the platform, the ledger and the registry of one installation."""

import os
from pathlib import Path

import msgspec

from watchkeeper.contracts.settings import read_settings
from watchkeeper.ledger import Ledger
from watchkeeper.platforms import Endpoints, Platform, open_platform
from watchkeeper.registry import Registry


class Settings(msgspec.Struct, frozen=True):
    """``WATCHKEEPER_HOME`` holds the state of a local system; ``WATCHKEEPER_PLATFORM`` names
    another platform than that one; ``WATCHKEEPER_MODELS`` lists the models, as JSON.
    """

    home: Path = Path(".watchkeeper")
    platform: str = ""
    models: tuple[str, ...] = ("ai4i-failure", "warranty-risk")


class Installation(msgspec.Struct, frozen=True):
    """One installed system."""

    platform: Platform
    ledger: Ledger
    registry: Registry
    endpoints: Endpoints
    models: tuple[str, ...]


def read_cli_settings() -> Settings:
    """Read the settings; the home becomes an absolute path."""
    given = {name: value for name, value in os.environ.items() if value}  # empty is the default
    settings = read_settings(Settings, given)
    return msgspec.structs.replace(settings, home=settings.home.resolve())


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
        ledger=Ledger(os.environ.get("WATCHKEEPER_LEDGER_URL", endpoints.ledger)),
        registry=Registry(endpoints.mlflow),  # whatever MLflow the user's shell may name
        endpoints=endpoints,
        models=tuple(endpoints.hosts) or settings.models,
    )
