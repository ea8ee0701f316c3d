"""``watchkeeper status``: what serves, what rolls out, what drifts, and the addresses.

People need it most when something is broken. A part that does not answer is named, and everything
else is shown.
"""

from collections.abc import Callable
from typing import TypeVar

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from watchkeeper.cli.system import System
from watchkeeper.core.names import CANDIDATE, PREVIOUS, PRODUCTION
from watchkeeper.core.version import short_digest
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.episodes import OPEN_STATES, Episode, episodes
from watchkeeper.ledger.errors import LedgerError, hide_password
from watchkeeper.ledger.events import first_digests, production_version, unresolved_watch_failure
from watchkeeper.ledger.gaps import count_gaps
from watchkeeper.ledger.reports import reports
from watchkeeper.platforms import (
    Endpoints,
    Platform,
    PlatformError,
    Process,
    RunState,
    ServingStatus,
)
from watchkeeper.registry import RegistryError

Value = TypeVar("Value")


class ModelStatus(msgspec.Struct, frozen=True):
    """One model: its aliases, weights by version, state of its rollout, runs and episodes.

    ``weights`` are percentages; ``confirmed`` is true if the gateway applies them. ``gaps`` counts
    requests without a record: ``lost`` because the spool was full, ``shed`` under overload.
    ``logs`` has the log of each failed run: a file, or the command that prints it. ``reasons`` says
    why a run has failed or does not start, where the platform knows.
    ``watch_failure`` says why the drift watch of production fails; it is empty if it works.
    ``digests`` identify the content of each version, where it is known.
    ``cannot_alarm`` are the features of production whose drift the watch cannot see. ``problem``
    says why the route of the model cannot be read, or what the gateway does not do for the model
    although it should; it is empty if there is nothing.
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
    serving: list[ServingStatus]
    runs: dict[str, RunState]
    episodes: list[Episode]
    gaps: dict[str, int] = {}
    logs: dict[str, str] = {}
    reasons: dict[str, str] = {}
    watch_failure: str = ""
    cannot_alarm: list[str] = []
    digests: dict[int, str] = {}
    problem: str = ""


class Status(msgspec.Struct, frozen=True):
    """The whole system.

    ``down`` maps each part that does not answer to its error. What only such a part knows is empty.
    ``removed`` are the models that are no longer configured and are being taken out of service.
    """

    endpoints: Endpoints
    models: list[ModelStatus]
    processes: list[Process]
    down: dict[str, str] = {}
    removed: list[str] = []


class _Reader:
    """Calls the parts of the system. A part that has failed once is not called again."""

    def __init__(self) -> None:
        self.down: dict[str, str] = {}

    def read(self, part: str, call: Callable[[], Value], default: Value) -> Value:
        if part in self.down:
            return default
        try:
            return call()
        except (PlatformError, RegistryError, LedgerError, OSError) as error:
            self.down[part] = " ".join(str(error).split())
            return default


def read_status(system: System) -> Status:
    """Read registry, platform and ledger."""
    reader = _Reader()
    return Status(
        endpoints=without_passwords(system.endpoints),
        models=[_read_model(system, model, reader) for model in system.models],
        processes=reader.read("platform", system.platform.processes, []),
        removed=reader.read("platform", system.platform.removed_models, []),
        down=reader.down,
    )


def _read_model(system: System, model: str, reader: _Reader) -> ModelStatus:
    platform, read = system.platform, reader.read
    aliases: dict[str, int] = read("registry", lambda: system.registry.aliases(model), {})
    serving: dict[int, ServingStatus] = read("platform", lambda: platform.serving(model), {})
    try:
        route, paused, problem = platform.route(model), platform.commands(model).paused, ""
    except PlatformError as error:  # it is about this model only, or ``serving`` has noticed it
        route, paused, problem = None, False, str(error)
    problems: list[str] = read("gateway", lambda: platform.problems(model), [])
    runs: dict[str, RunState] = read("platform", lambda: platform.runs(model), {})
    promoted = read("ledger", lambda: production_version(system.ledger, model), None)
    return ModelStatus(
        name=model,
        host=system.endpoints.hosts.get(model, model),
        production=aliases.get(PRODUCTION),
        candidate=aliases.get(CANDIDATE),
        previous=aliases.get(PREVIOUS),
        weights=route.weights if route else {},
        # A gateway that does not answer has confirmed nothing.
        confirmed=route is not None and read("gateway", lambda: platform.confirmed(model), False),
        paused=paused,
        rollout=route.state if route else {},
        serving=sorted(serving.values(), key=lambda s: s.version),
        runs=runs,
        episodes=read("ledger", lambda: episodes(system.ledger, model), []),
        gaps=read("ledger", lambda: count_gaps(system.ledger, model), {}),
        logs={run: platform.run_log(run) for run, state in runs.items() if state == "failed"},
        reasons=read("platform", lambda: _reasons(platform, runs), {}),
        watch_failure=read("ledger", lambda: _watch_failure(system.ledger, model, promoted), ""),
        cannot_alarm=read("ledger", lambda: _cannot_alarm(system.ledger, model, promoted), []),
        digests=_digests(system, model, reader, aliases, serving),
        problem="; ".join([problem] if problem else problems),
    )


def _digests(
    system: System,
    model: str,
    reader: _Reader,
    aliases: dict[str, int],
    serving: dict[int, ServingStatus],
) -> dict[int, str]:
    """Return the content of versions: what serves, or what the ledger describes by the number."""
    found = {version: status.digest for version, status in serving.items() if status.digest}
    unknown = {*aliases.values(), *serving} - found.keys()
    described: dict[int, str] = reader.read(
        "ledger", lambda: first_digests(system.ledger, model, unknown), {}
    )
    return described | found


def _reasons(platform: Platform, runs: dict[str, RunState]) -> dict[str, str]:
    """Return why runs have failed or do not start, by name."""
    found = {run: platform.run_reason(run) for run, state in runs.items() if state != "succeeded"}
    return {run: reason for run, reason in found.items() if reason}


def _watch_failure(ledger: Ledger, model: str, version: int | None) -> str:
    failure = version and unresolved_watch_failure(ledger, model, version)
    return failure.reason if failure else ""


def _cannot_alarm(ledger: Ledger, model: str, version: int | None) -> list[str]:
    newest = reports(ledger, model, version, limit=1) if version else []
    return [name for report in newest for name in report.reference.cannot_alarm]


def print_status(console: Console, status: Status) -> None:
    """Print the status for people."""
    for part, error in status.down.items():
        console.print(
            f"[red]the {part} does not answer[/red], so its part of the status is missing: "
            + escape(error)
        )
    for model in status.models:
        _print_model(console, model, status.down)
    if status.removed:
        # An installation without any model was probably upgraded without its values.
        what = "are being taken out of service" if status.endpoints.hosts else "stay in service"
        console.print(
            f"  [red]no longer configured: {', '.join(status.removed)}[/red]; they {what}"
        )
    print_endpoints(console, status.endpoints)
    for process in status.processes:
        if process.state.lower() not in ("running", "ready", "succeeded"):
            console.print(f"  [red]{process.name} is {process.state}[/red], see {process.log}")


def _print_model(console: Console, model: ModelStatus, down: dict[str, str]) -> None:
    console.print(_table(model, down))
    for serving in model.serving:  # below the table, so that a command in a reason can be copied
        if serving.reason:
            reason = escape(serving.reason)
            console.print(f"  v{serving.version} {serving.state}: {reason}", soft_wrap=True)
    if model.problem:
        console.print(f"  [red]{escape(model.problem)}[/red]")
    if model.rollout.get("unregistered_since"):
        console.print(
            f"  [red]the registry does not name version {model.rollout['production']}[/red], "
            "which is in production and keeps serving; 'watchkeeper history' says what to do"
        )
    _print_runs(console, model)
    for episode in model.episodes:
        if episode.state in OPEN_STATES:
            reason = escape(episode.reason)
            console.print(f"  drift episode {episode.id}: {episode.state} ({reason})")
    if model.watch_failure:
        console.print(f"  [red]{escape(model.watch_failure)}[/red]")
    if model.cannot_alarm:
        names = escape(", ".join(model.cannot_alarm))
        console.print(f"  drift of these features cannot be seen, they vary too much: {names}")
    if any(model.gaps.values()):
        lost, shed = model.gaps["lost"], model.gaps["shed"]
        console.print(f"  requests without a record: {lost} lost, {shed} shed")


def _print_runs(console: Console, model: ModelStatus) -> None:
    for run, state in sorted(model.runs.items()):
        if state != "succeeded":
            log = f", see {escape(model.logs[run])}" if run in model.logs else ""
            console.print(f"  training run {run}: {state}{log}", soft_wrap=True)
            if run in model.reasons:
                console.print(f"    {escape(model.reasons[run])}", soft_wrap=True)


def without_passwords(endpoints: Endpoints) -> Endpoints:
    """Return the endpoints without the password that the ledger's URL can contain."""
    if not endpoints.ledger:  # on a cluster the URL is in a Secret
        return endpoints
    return msgspec.structs.replace(endpoints, ledger=hide_password(endpoints.ledger))


def print_endpoints(console: Console, endpoints: Endpoints) -> None:
    """Print the addresses that the platform knows."""
    for name in ("v2", "mlflow", "drift", "metrics"):
        if address := getattr(endpoints, name):
            console.print(f"  {name:8} {address}")


def _table(model: ModelStatus, down: dict[str, str]) -> Table:
    table = Table(title=model.name + (" (paused)" if model.paused else ""), title_justify="left")
    for column in ("version", "content", "alias", "traffic", "serving", "rollout"):
        table.add_column(column)
    aliases = {PRODUCTION: model.production, CANDIDATE: model.candidate, PREVIOUS: model.previous}
    servings = {s.version: s for s in model.serving}
    # The route names the candidate even while the registry does not answer.
    candidate = model.candidate or int(model.rollout.get("candidate") or 0)
    for version in sorted({*servings, *model.weights, *(v for v in aliases.values() if v)}):
        table.add_row(
            str(version),
            short_digest(model.digests.get(version, "")),
            ", ".join(alias for alias, v in aliases.items() if v == version),
            f"{model.weights.get(version, 0)} %",
            _serving(servings.get(version), unknown="platform" in down),
            escape(model.rollout.get("reason", "")) if version == candidate else "",
        )
    return table


def _serving(serving: ServingStatus | None, *, unknown: bool) -> str:
    if serving is None:
        return "unknown" if unknown else "no"
    return serving.state
