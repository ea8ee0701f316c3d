"""The worlds that the models watch: one package each, and nothing else knows a model's columns.

A world has the operational tables of its plant and fills them, knows in which ways things may
change, and makes the cases that clients ask about.
"""

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, create_engine, event, make_url

from watchkeeper.contracts.folders import make_private
from watchkeeper.contracts.kept import in_force, read_kept
from watchkeeper.contracts.settings import read_settings

WORLDS: Final = {"ai4i-failure": "ai4i", "warranty-risk": "vehicles"}
DEFAULT: Final = "ai4i-failure"
STEADY: Final = "steady"
BUSY_SECONDS: Final = 30
FIRST: Final = 1_767_225_600.0  # where the past of every world begins: 2026-01-01
SECONDS_APART: Final = 60.0

Inputs = TypeVar("Inputs")
Rule = TypeVar("Rule")


class WorldError(ValueError):
    """A world cannot be had like this: no such model or scenario, or a table that it cannot use."""


class Scenario(msgspec.Struct, Generic[Inputs, Rule], frozen=True):
    """One way in which things go: what is measured, and by which rule it turns out how.

    Every world has one named ``steady``.
    """

    name: str
    story: str
    inputs: Inputs
    rule: Rule


class Case(msgspec.Struct, frozen=True, array_like=True):
    """One request's row: values by column, whom it is about, and what will turn out to be true."""

    row: dict[str, Any]
    subject: str
    outcome: int


class Live(Protocol):
    """A plant at work. Its calls may wait for a database."""

    def cases(self, count: int, scenario: str) -> list[Case]:
        """Return the next ``count`` cases, made under that scenario."""

    def close(self) -> None:
        """Stop work and close all connections."""


class World(Protocol):
    """A model's world.

    ``columns`` are the request's columns in order, with their V2 datatypes. ``drift`` names the
    scenario that the story plays; ``slow`` are the training parameters, as ``key=value``, of a
    version that is accurate but slow. Some worlds can begin with a table (``takes_table``).
    """

    model: str
    takes_table: bool
    columns: tuple[tuple[str, str], ...]
    scenarios: Mapping[str, Scenario[Any, Any]]
    drift: str
    slow: tuple[str, ...]

    def check(self, data: Path) -> None:
        """Raise WorldError unless the file is the table that this world can begin with."""

    def seed(self, url: str, data: Path | None = None) -> str:
        """Store the plant's past unless there is one already; say what is there.

        All of it comes in one transaction: cut off, there is nothing, and the next call begins
        anew.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot be reached or written.
        """

    def live(
        self, url: str, *, seed: int, data: Path | None, label_delay: float, log: Path
    ) -> Live:
        """Set the plant to work; outcomes are known after ``label_delay`` seconds.

        Processes that it may need write to ``log``.
        """


def by_name(*scenarios: Scenario[Inputs, Rule]) -> dict[str, Scenario[Inputs, Rule]]:
    """Return the scenarios of a world by their names."""
    return {scenario.name: scenario for scenario in scenarios}


def past(count: int) -> NDArray[np.float64]:
    """Return the times (``count``,) of what happened before the story, in seconds since 1970."""
    return FIRST + SECONDS_APART * np.arange(1, count + 1, dtype=np.float64)


def find(model: str) -> World:
    """Return the world of a model.

    Raises:
        WorldError: there is none.
    """
    if model not in WORLDS:
        raise WorldError(f"no world for model {model!r}; there is {', '.join(WORLDS)}")
    world: World = importlib.import_module(f"{__name__}.{WORLDS[model]}").WORLD
    return world


def tables(models: Sequence[str], data: Path | None) -> dict[str, Path | None]:
    """Return for each model the table that its world begins with, if one was given.

    Raises:
        WorldError: none of the models takes a table, or it is not that table.
    """
    takers = [model for model in models if find(model).takes_table]
    if data is not None:
        for model in takers:
            find(model).check(data)
        if not takers:
            raise WorldError(f"{data}: the world of {', '.join(models)} is made, not read")
    return {model: data if model in takers else None for model in models}


def scenario_of(world: World, name: str) -> Scenario[Any, Any]:
    """Return a scenario of a world.

    Raises:
        WorldError: it has none of that name.
    """
    if name not in world.scenarios:
        known = "; ".join(f"{s.name}: {s.story}" for s in world.scenarios.values())
        raise WorldError(f"{world.model} has no scenario {name!r}; there is {known}")
    return world.scenarios[name]


class Given(msgspec.Struct, frozen=True):
    """What the system is told of its plants, now or by an earlier ``up``."""

    source_url: str = ""
    models: tuple[str, ...] = ()


def read_given() -> Given:
    """Read it.

    Raises:
        SettingsError: a variable, or what was kept of it, cannot be used.
    """
    return read_settings(Given, in_force(("SOURCE_URL", "MODELS"), read_kept(_home())))


def source_url() -> str:
    """Return the operational database's URL: the settings' one, or a file in the home."""
    return read_given().source_url or f"sqlite:///{_home() / 'operational.db'}"


def _home() -> Path:
    return Path(os.environ.get("WATCHKEEPER_HOME") or ".watchkeeper").resolve()


def open_database(url: str) -> Engine:
    """Connect to an operational database; a SQLite file's folder is made."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, hide_parameters=True)
    if parsed.database:
        make_private(Path(parsed.database).parent)
    engine = create_engine(parsed, hide_parameters=True, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        # A plant writes while training runs read: neither shall wait for the other.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine
