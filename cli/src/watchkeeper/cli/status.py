"""`watchkeeper status`: what serves, what rolls out, what drifts, where things are."""

import msgspec
from rich.console import Console
from rich.table import Table
from sqlalchemy import make_url

from watchkeeper.cli.installation import Installation
from watchkeeper.contracts.names import CANDIDATE, PREVIOUS, PRODUCTION
from watchkeeper.ledger.episodes import OPEN_STATES, Episode, episodes
from watchkeeper.platforms import (
    Endpoints,
    Platform,
    PlatformError,
    Process,
    RunState,
    Serving,
)


class ModelStatus(msgspec.Struct, frozen=True):
    """One model: its aliases, its traffic by version, its rollout's state, runs and episodes."""

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


class Status(msgspec.Struct, frozen=True):
    """The whole system."""

    endpoints: Endpoints
    models: list[ModelStatus]
    processes: list[Process]


def read_status(installation: Installation) -> Status:
    """Ask registry, platform and ledger."""
    return Status(
        endpoints=without_passwords(installation.endpoints),
        models=[_model(installation, model) for model in installation.models],
        processes=installation.platform.processes(),
    )


def _model(installation: Installation, model: str) -> ModelStatus:
    platform = installation.platform
    aliases = installation.registry.aliases(model)
    route = platform.route(model)
    return ModelStatus(
        name=model,
        host=installation.endpoints.hosts.get(model, model),
        production=aliases.get(PRODUCTION),
        candidate=aliases.get(CANDIDATE),
        previous=aliases.get(PREVIOUS),
        weights=route.weights if route else {},
        confirmed=route is not None and _confirmed(platform, model),
        paused=platform.asks(model).paused,
        rollout=route.state if route else {},
        serving=sorted(platform.serving(model).values(), key=lambda s: s.version),
        runs=platform.runs(model),
        episodes=episodes(installation.ledger, model),
    )


def _confirmed(platform: Platform, model: str) -> bool:
    """A gateway that does not answer has confirmed nothing; all else can be told without it."""
    try:
        return platform.confirmed(model)
    except PlatformError:
        return False


def print_status(console: Console, status: Status) -> None:
    """Show it to a person."""
    for model in status.models:
        console.print(_table(model))
        for episode in model.episodes:
            if episode.state in OPEN_STATES:
                console.print(f"  drift episode {episode.id}: {episode.state} ({episode.reason})")
    print_endpoints(console, status.endpoints)
    for process in status.processes:
        if process.state.lower() not in ("running", "ready", "succeeded"):
            console.print(f"  [red]{process.name} is {process.state}[/red], see {process.log}")


def without_passwords(endpoints: Endpoints) -> Endpoints:
    """Return the endpoints as they may be shown: a ledger's URL can hold a password."""
    ledger = make_url(endpoints.ledger).render_as_string(hide_password=True)
    return msgspec.structs.replace(endpoints, ledger=ledger)


def print_endpoints(console: Console, endpoints: Endpoints) -> None:
    """Show where things are."""
    for name in ("v2", "mlflow", "drift", "metrics"):
        console.print(f"  {name:8} {getattr(endpoints, name)}")


def _table(model: ModelStatus) -> Table:
    table = Table(title=model.name + (" (paused)" if model.paused else ""), title_justify="left")
    for column in ("version", "alias", "traffic", "serving", "what happens"):
        table.add_column(column)
    aliases = {PRODUCTION: model.production, CANDIDATE: model.candidate, PREVIOUS: model.previous}
    shown = {s.version: s for s in model.serving}
    for version in sorted({*shown, *model.weights, *(v for v in aliases.values() if v)}):
        serving = shown.get(version)
        table.add_row(
            str(version),
            ", ".join(alias for alias, v in aliases.items() if v == version),
            f"{model.weights.get(version, 0)} %",
            f"{serving.state} {serving.reason}".strip() if serving else "no",
            model.rollout.get("reason", "") if version == model.candidate else "",
        )
    return table
