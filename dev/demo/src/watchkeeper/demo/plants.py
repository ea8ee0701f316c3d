"""Plants: simulations of what models observe. The rest of the demo knows no model's columns.

A plant fills the operational tables, has scenarios of change, and makes the cases for which clients
send requests. The package of a model declares its plant by an entry point::

    [project.entry-points."watchkeeper.plants"]
    pump-failure = "pump_failure.plant:PLANT"
"""

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.exc import SQLAlchemyError

from watchkeeper.core.folders import make_private
from watchkeeper.core.names import declared_models
from watchkeeper.core.persisted import effective_variables, read_persisted
from watchkeeper.core.settings import read_settings
from watchkeeper.core.signature import Datatype

DatabaseError = SQLAlchemyError  # the operational database does not answer or refuses
GROUP: Final = "watchkeeper.plants"
STEADY: Final = "steady"
BUSY_SECONDS: Final = 30
HISTORY_START: Final = 1_767_225_600.0  # 2026-01-01
SECONDS_APART: Final = 60.0  # two rows of the history

Inputs = TypeVar("Inputs")
Rule = TypeVar("Rule")


class PlantError(ValueError):
    """There is no such plant or scenario, or the plant cannot use the table."""


class Scenario(msgspec.Struct, Generic[Inputs, Rule], frozen=True):
    """One way in which the plant behaves: its inputs, and the rule from inputs to outcomes.

    Every plant has a scenario ``steady``.
    """

    name: str
    description: str
    inputs: Inputs
    rule: Rule


class Case(msgspec.Struct, frozen=True, array_like=True):
    """The row of one request: values by column, the subject, and the outcome that becomes known."""

    row: dict[str, Any]
    subject: str
    outcome: int


class RunningPlant(Protocol):
    """A plant that makes cases. Its methods can wait for a database."""

    def cases(self, count: int, scenario: str) -> list[Case]:
        """Return the next ``count`` cases of a scenario."""

    def close(self) -> None:
        """Stop, and close all connections."""


class Plant(Protocol):
    """The plant of one model.

    ``columns`` are the columns of a request in order, with their V2 datatypes. ``drift`` is the
    scenario of the demonstration. ``slow`` are the training parameters, as ``key=value``, of a
    version that is accurate but slow. ``takes_table`` is true if the history can be a table.
    """

    model: str
    takes_table: bool
    columns: tuple[tuple[str, Datatype], ...]
    scenarios: Mapping[str, Scenario[Any, Any]]
    drift: str
    slow: tuple[str, ...]

    def check(self, data: Path) -> None:
        """Raise PlantError if the file is not a table that this plant can use as its history."""

    def seed(self, url: str, data: Path | None = None) -> str:
        """Store the history of the plant, if the database has none; return what is stored.

        The history is stored in one transaction, so an interrupted call leaves nothing behind.

        Raises:
            DatabaseError: the database cannot be reached or written.
        """

    def start(
        self, url: str, *, seed: int, data: Path | None, label_delay: float, log: Path
    ) -> RunningPlant:
        """Start the plant; outcomes become known after ``label_delay`` seconds.

        Processes of the plant write to ``log``.
        """


def by_name(*scenarios: Scenario[Inputs, Rule]) -> dict[str, Scenario[Inputs, Rule]]:
    """Return the scenarios of a plant by their names."""
    return {scenario.name: scenario for scenario in scenarios}


def history_times(count: int) -> NDArray[np.float64]:
    """Return the times of ``count`` rows of history, in seconds since 1970; shape ``(count,)``."""
    return HISTORY_START + SECONDS_APART * np.arange(1, count + 1, dtype=np.float64)


def simulated() -> list[str]:
    """Return the names of all models that have a plant, in alphabetical order."""
    return sorted(entry_points(group=GROUP).names)


def declared() -> list[str]:
    """Return the names of all declared models, with a plant or without, in alphabetical order."""
    return sorted({*declared_models(), *simulated()})


def find(model: str) -> Plant:
    """Return the plant of a model.

    Raises:
        PlantError: the model has no plant.
    """
    if model not in simulated():
        raise PlantError(
            f"model {model!r} has no plant; models with a plant: {', '.join(simulated())}"
        )
    (entry,) = entry_points(group=GROUP, name=model)
    plant: Plant = entry.load()
    return plant


def tables_by_model(models: Sequence[str], data: Path | None) -> dict[str, Path | None]:
    """Return for each model ``data``, if its plant can use a table as history, or None.

    Raises:
        PlantError: no plant can use a table, or not this one.
    """
    takers = [model for model in models if find(model).takes_table]
    if data is not None:
        for model in takers:
            find(model).check(data)
        if not takers:
            raise PlantError(f"{data}: the plant of {', '.join(models)} cannot use a table")
    return {model: data if model in takers else None for model in models}


def find_scenario(plant: Plant, name: str) -> Scenario[Any, Any]:
    """Return a scenario of a plant.

    Raises:
        PlantError: the plant has no scenario of that name.
    """
    if name not in plant.scenarios:
        known = "; ".join(f"{s.name}: {s.description}" for s in plant.scenarios.values())
        raise PlantError(f"{plant.model} has no scenario {name!r}; its scenarios: {known}")
    return plant.scenarios[name]


class PlantSettings(msgspec.Struct, frozen=True):
    """The settings of the system that its plants use, from now or from an earlier ``up``."""

    source_url: str = ""
    models: tuple[str, ...] = ()


def read_plant_settings() -> PlantSettings:
    """Read the settings from the environment and from the home.

    Raises:
        SettingsError: a variable, or its stored value, cannot be used.
    """
    variables = effective_variables(("SOURCE_URL", "MODELS"), read_persisted(_home()))
    return read_settings(PlantSettings, variables)


def source_url() -> str:
    """Return the URL of the operational database: from the settings, or a file in the home."""
    return read_plant_settings().source_url or f"sqlite:///{_home() / 'operational.db'}"


def _home() -> Path:
    return Path(os.environ.get("WATCHKEEPER_HOME") or ".watchkeeper").resolve()


def open_database(url: str) -> Engine:
    """Connect to an operational database; the folder of a SQLite file is created."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, hide_parameters=True)
    if parsed.database:
        make_private(Path(parsed.database).parent)
    engine = create_engine(parsed, hide_parameters=True, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        # A plant writes while training runs read. In WAL mode they do not wait for each other.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine
