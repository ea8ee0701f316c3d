"""`watchkeeper status`: what serves, what rolls out, what drifts, where things are.

It is asked for most when something is broken: what does not answer is said, all else is shown.
"""

from collections.abc import Callable
from typing import TypeVar

import msgspec
from rich.console import Console
from rich.table import Table
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from watchkeeper.cli.installation import Installation
from watchkeeper.contracts.names import CANDIDATE, PREVIOUS, PRODUCTION
from watchkeeper.ledger.episodes import OPEN_STATES, Episode, episodes
from watchkeeper.ledger.gaps import count_gaps
from watchkeeper.platforms import (
    Endpoints,
    PlatformError,
    Process,
    RunState,
    Serving,
)
from watchkeeper.registry import RegistryError

Found = TypeVar("Found")


class ModelStatus(msgspec.Struct, frozen=True):
    """One model: its aliases, its traffic by version, its rollout's state, runs and episodes.

    ``gaps`` counts requests without a record: ``lost`` to a full spool, ``shed`` under overload.
    """

    name: str
    host: str
    production: int | None
    candidate: int | None
    previous: int | None
    weights: dict[int, int]
    confirmed: bool
    paused: bool
    rollout: dict[str, str]
    serving: list[Serving]
    runs: dict[str, RunState]
    episodes: list[Episode]
    gaps: dict[str, int] = {}


class Status(msgspec.Struct, frozen=True):
    """The whole system. ``down`` names the parts that do not answer, each with its error: what
    they alone know is empty here.
    """

    endpoints: Endpoints
    models: list[ModelStatus]
    processes: list[Process]
    down: dict[str, str] = {}


class _Asking:
    """Asks the parts of the system; one that does not answer is not asked again."""

    def __init__(self) -> None:
        self.down: dict[str, str] = {}

    def ask(self, part: str, call: Callable[[], Found], otherwise: Found) -> Found:
        if part in self.down:
            return otherwise
        try:
            return call()
        except (PlatformError, RegistryError, SQLAlchemyError, OSError) as error:
            self.down[part] = " ".join(str(error).split())
            return otherwise


def read_status(installation: Installation) -> Status:
    """Ask registry, platform and ledger for what they know.

    Raises:
        PlatformError: a file of the platform cannot be read.
    """
    asking = _Asking()
    return Status(
        endpoints=without_passwords(installation.endpoints),
        models=[_model(installation, model, asking) for model in installation.models],
        processes=asking.ask("supervision", installation.platform.processes, []),
        down=asking.down,
    )


def _model(installation: Installation, model: str, asking: _Asking) -> ModelStatus:
    platform, ask = installation.platform, asking.ask
    aliases: dict[str, int] = ask("registry", lambda: installation.registry.aliases(model), {})
    serving: dict[int, Serving] = ask("supervision", lambda: platform.serving(model), {})
    route = platform.route(model)
    return ModelStatus(
        name=model,
        host=installation.endpoints.hosts.get(model, model),
        production=aliases.get(PRODUCTION),
        candidate=aliases.get(CANDIDATE),
        previous=aliases.get(PREVIOUS),
        weights=route.weights if route else {},
        # A gateway that does not answer has confirmed nothing.
        confirmed=route is not None and ask("gateway", lambda: platform.confirmed(model), False),
        paused=platform.asks(model).paused,
        rollout=route.state if route else {},
        serving=sorted(serving.values(), key=lambda s: s.version),
        runs=ask("supervision", lambda: platform.runs(model), {}),
        episodes=ask("ledger", lambda: episodes(installation.ledger, model), []),
        gaps=ask("ledger", lambda: count_gaps(installation.ledger, model), {}),
    )


def print_status(console: Console, status: Status) -> None:
    """Show it to a person."""
    for part, why in status.down.items():
        console.print(f"[red]{part} does not answer[/red], what it knows is missing here: {why}")
    for model in status.models:
        console.print(_table(model, status.down))
        for run, state in sorted(model.runs.items()):
            if state != "succeeded":
                console.print(f"  training run {run}: {state}")
        for episode in model.episodes:
            if episode.state in OPEN_STATES:
                console.print(f"  drift episode {episode.id}: {episode.state} ({episode.reason})")
        if any(model.gaps.values()):
            lost, shed = model.gaps["lost"], model.gaps["shed"]
            console.print(f"  requests without a record: {lost} lost, {shed} shed")
    print_endpoints(console, status.endpoints)
    for process in status.processes:
        if process.state.lower() not in ("running", "ready", "succeeded"):
            console.print(f"  [red]{process.name} is {process.state}[/red], see {process.log}")


def without_passwords(endpoints: Endpoints) -> Endpoints:
    """Return the endpoints as they may be shown: a ledger's URL can hold a password."""
    if not endpoints.ledger:  # a cluster's is a secret
        return endpoints
    ledger = make_url(endpoints.ledger).render_as_string(hide_password=True)
    return msgspec.structs.replace(endpoints, ledger=ledger)


def print_endpoints(console: Console, endpoints: Endpoints) -> None:
    """Show where things are, as far as that is said."""
    for name in ("v2", "mlflow", "drift", "metrics"):
        if where := getattr(endpoints, name):
            console.print(f"  {name:8} {where}")


def _table(model: ModelStatus, down: dict[str, str]) -> Table:
    table = Table(title=model.name + (" (paused)" if model.paused else ""), title_justify="left")
    for column in ("version", "alias", "traffic", "serving", "what happens"):
        table.add_column(column)
    aliases = {PRODUCTION: model.production, CANDIDATE: model.candidate, PREVIOUS: model.previous}
    shown = {s.version: s for s in model.serving}
    # The route knows whose rollout it is even while the registry is away.
    coming = model.candidate or int(model.rollout.get("candidate") or 0)
    for version in sorted({*shown, *model.weights, *(v for v in aliases.values() if v)}):
        serving = shown.get(version)
        table.add_row(
            str(version),
            ", ".join(alias for alias, v in aliases.items() if v == version),
            f"{model.weights.get(version, 0)} %",
            _serving(serving, unknown="supervision" in down),
            model.rollout.get("reason", "") if version == coming else "",
        )
    return table


def _serving(serving: Serving | None, *, unknown: bool) -> str:
    if serving is None:
        return "unknown" if unknown else "no"
    return f"{serving.state} {serving.reason}".strip()
