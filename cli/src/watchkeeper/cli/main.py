"""Watch over models in production: see what happens and why, and steer it.

Every command prints JSON for programs with --json.
"""

import contextlib
import os
from datetime import UTC, datetime
from importlib import metadata
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from watchkeeper.cli import commands, training_commands
from watchkeeper.cli.cli_output import JSON, Json, JsonErrorGroup, print_result, report_errors
from watchkeeper.cli.data_commands import data_app
from watchkeeper.cli.delivery import wait_for_delivery
from watchkeeper.cli.down import down as stop_system
from watchkeeper.cli.explain import print_explanation, read_explanation
from watchkeeper.cli.history import EventPrinter, follow_events, parse_since, read_events
from watchkeeper.cli.local_settings import needs_keys
from watchkeeper.cli.sample import Form, read_sample, render
from watchkeeper.cli.status import (
    print_endpoints,
    print_status,
    read_status,
    without_passwords,
)
from watchkeeper.cli.system import local_home, open_model, open_system, read_cli_settings
from watchkeeper.cli.up import up as start_system
from watchkeeper.core.events import as_json as event_as_json

app = typer.Typer(cls=JsonErrorGroup, no_args_is_help=True, add_completion=False, help=__doc__)
app.add_typer(data_app, name="data", rich_help_panel="Inspect")
console = Console()

MAKE = "Make a model"
INSPECT = "Inspect"
STEER = "Steer"
LOCAL = "Local system"

Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A training parameter of the model; can be given several times.",
    ),
]
Model = Annotated[
    str, typer.Argument(help="The model. It can be left out if the system has only one.")
]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"watchkeeper {metadata.version('watchkeeper-cli')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Accept the options that stand before a command."""


def _print_done(message: str, as_json: bool) -> None:
    print_result({"done": message}, as_json, lambda: console.print(message))


@app.command(rich_help_panel=MAKE)
def new(
    name: Annotated[str, typer.Argument(help="The name of the model, and of the new folder.")],
    *,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="A column with a truth. Several of them make a model with several heads. Without "
            "any, the model says how usual a row is.",
        ),
    ] = None,
    file: Annotated[
        str, typer.Option("--from", metavar="FILE", help="A CSV file with the rows.")
    ] = "",
    source: Annotated[
        str, typer.Option(metavar="URL", help="The SQLAlchemy URL of a database with the rows.")
    ] = "",
    table: Annotated[str, typer.Option(help="The table or view in that database.")] = "",
    mlflow: Annotated[
        str,
        typer.Option(
            metavar="models:/NAME/VERSION",
            help="A version in MLflow; the model adopts it and later ones, and fits nothing.",
        ),
    ] = "",
    json: Json = False,
) -> None:
    """Write the project of a model from a table: declaration, tests, Dockerfile, values."""
    given = {"--from": file, "--source": source, "--table": table, "--mlflow": mlflow}
    words = [word for option, value in given.items() if value for word in (option, value)]
    words += [word for column in target or [] for word in ("--target", column)]
    with report_errors(json):
        code = training_commands.new(local_home(), [name, *words, *_json_option(json)])
    raise typer.Exit(code)


@app.command(rich_help_panel=MAKE)
def check(
    model: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FOLDER", help="The model, or the folder of a project, such as ./pump."
        ),
    ],
    *,
    parameter: Parameters = None,
    json: Json = False,
) -> None:
    """Train a model on a sample, without a registry, and say what to change.

    It reads, splits, fits, converts, saves, loads and answers, in about a minute.
    """
    words = [word for text in parameter or [] for word in ("--set", text)]
    with report_errors(json):
        code = training_commands.check(local_home(), model, [*words, *_json_option(json)])
    raise typer.Exit(code)


def _json_option(wanted: bool) -> list[str]:
    return [JSON] if wanted else []


@app.command(rich_help_panel=INSPECT)
def status(json: Json = False) -> None:
    """Show versions, traffic, rollouts, drift and addresses."""
    with report_errors(json):
        found = read_status(open_system())
        print_result(found, json, lambda: print_status(console, found))


@app.command(rich_help_panel=INSPECT)
def history(
    model: Annotated[str, typer.Option(help="Only events of this model.")] = "",
    since: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Only events since then: a duration (2h, 30m, 5d), a date (2026-11-29) or an ISO "
            "time (2026-11-29T08:30, local unless it has an offset).",
        ),
    ] = "",
    last: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only the newest N events.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new events as they come, until Ctrl-C.")
    ] = False,
    json: Json = False,
) -> None:
    """Show every decision with its reason, oldest first.

    Times are local. In a pipe, each event is one line.

    JSON has the time in seconds since 1970: one array, or with --follow one object per line.
    """
    with report_errors(json):
        start = parse_since(since, datetime.now(UTC)) if since else 0.0
        system = open_system()
        models = system.select_models(model)
        printer = EventPrinter(console, show_model=len(models) > 1)
        if follow:
            with contextlib.suppress(KeyboardInterrupt):
                for event in follow_events(system, models, since=start, last=last):
                    if json:
                        print(msgspec.json.encode(event_as_json(event)).decode(), flush=True)
                    else:
                        printer.print(event)
            return
        events = read_events(system, models, since=start, last=last)

        def print_all() -> None:
            for event in events:
                printer.print(event)

        print_result([event_as_json(event) for event in events], json, print_all)


@app.command(rich_help_panel=INSPECT)
def explain(
    prediction_id: Annotated[
        str, typer.Argument(help="The id in the response to a request, in full or its first part.")
    ],
    json: Json = False,
) -> None:
    """Show how one prediction came about: version, training run, data, trigger, rollout."""
    with report_errors(json):
        explanation = read_explanation(open_system(), prediction_id)
        print_result(explanation.as_json(), json, lambda: print_explanation(console, explanation))


@app.command(rich_help_panel=INSPECT)
def sample(
    model: Model = "",
    *,
    curl: Annotated[bool, typer.Option("--curl", help="For a shell; the default.")] = False,
    python: Annotated[
        bool, typer.Option("--python", help="For Python, without other packages.")
    ] = False,
    grpc: Annotated[
        bool, typer.Option("--grpc", help="For Python with tritonclient, over gRPC.")
    ] = False,
    json: Json = False,
) -> None:
    """Print a request that works, from the example of the version that serves."""
    with report_errors(json):
        if curl + python + grpc > 1:
            raise commands.CommandError("give one of --curl, --python and --grpc")
        form: Form = "python" if python else "grpc" if grpc else "curl"
        system, model = open_model(model)
        needs_key = needs_keys(read_cli_settings().home, os.environ)
        text = render(read_sample(system, model, needs_key=needs_key), form)
        print_result({"model": model, "form": form, "text": text}, json, lambda: print(text))


@app.command(rich_help_panel=INSPECT)
def wait(
    model: Annotated[str, typer.Argument(help="The model.")],
    *,
    code: Annotated[
        str,
        typer.Option(
            help="The version of the code: on a cluster its training image, as the values of the "
            "chart name it."
        ),
    ],
    seconds: Annotated[
        float, typer.Option("--timeout", min=0, help="How many seconds to wait at most.")
    ] = 7200.0,
    json: Json = False,
) -> None:
    """Wait for the result of new code: its training run, gate, rollout and watch.

    The exit code is 0 if its version is in production and its watch is over, otherwise 1.
    """
    with report_errors(json):
        system, model = open_model(model)
        for found in wait_for_delivery(system, model, code, seconds):
            if not json:
                version = "" if found.version is None else f"version {found.version}: "
                print(f"{found.state}: {version}{found.reason}", flush=True)
        print_result(found, json, lambda: None)
        if found.state != "promoted":
            raise typer.Exit(1)


@app.command(rich_help_panel=STEER)
def train(
    model: Model = "",
    *,
    parameter: Parameters = None,
    json: Json = False,
) -> None:
    """Start a training run."""
    with report_errors(json):
        system, model = open_model(model)
        name = commands.train(system, model, _parse_parameters(parameter or []))
        print_result({"run": name}, json, lambda: console.print(f"training run {name} started"))


@app.command(rich_help_panel=STEER)
def adopt(
    version: Annotated[
        str,
        typer.Argument(
            metavar="models:/NAME/VERSION",
            help="A version that somebody else has registered in MLflow; models:/NAME@ALIAS, too.",
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="The model that adopts it. It can be left out if the system has only one."
        ),
    ] = "",
    json: Json = False,
) -> None:
    """Make a version of a model from one that somebody else has registered in MLflow.

    A training run fetches it, judges it on the model's own rows, and registers it. The declaration
    of the model must adopt versions of that name.
    """
    with report_errors(json):
        system, model = open_model(model)
        name = commands.adopt(system, model, version)
        print_result({"run": name}, json, lambda: console.print(f"training run {name} started"))


def _parse_parameters(texts: list[str]) -> dict[str, str]:
    parameters = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not name or not separator:
            raise commands.CommandError(f"--set {text!r}: expected NAME=VALUE")
        parameters[name] = value
    return parameters


@app.command(rich_help_panel=STEER)
def promote(
    model: Model = "",
    version: Annotated[
        int | None, typer.Option(help="The version to promote. Default: the candidate.")
    ] = None,
    json: Json = False,
) -> None:
    """Promote a version to production.

    The candidate gets all traffic at once, without further checks. Another version that has passed
    its gate becomes the candidate and starts a rollout.
    """
    with report_errors(json):
        system, model = open_model(model)
        _print_done(commands.promote(system, model, version), json)


@app.command(rich_help_panel=STEER)
def abort(model: Model = "", json: Json = False) -> None:
    """Abort the rollout of the candidate; production gets all traffic."""
    with report_errors(json):
        system, model = open_model(model)
        _print_done(commands.abort(system, model), json)


@app.command(rich_help_panel=STEER)
def rollback(model: Model = "", json: Json = False) -> None:
    """Roll production back to the previous version."""
    with report_errors(json):
        system, model = open_model(model)
        _print_done(commands.rollback(system, model), json)


@app.command(rich_help_panel=STEER)
def pause(model: Model = "", json: Json = False) -> None:
    """Pause the rollout of a model; its traffic stays as it is."""
    with report_errors(json):
        system, model = open_model(model)
        _print_done(commands.set_paused(system, model, paused=True), json)


@app.command(rich_help_panel=STEER)
def resume(model: Model = "", json: Json = False) -> None:
    """Resume a paused rollout."""
    with report_errors(json):
        system, model = open_model(model)
        _print_done(commands.set_paused(system, model, paused=False), json)


@app.command(rich_help_panel=STEER)
def forget(
    subject: Annotated[
        str, typer.Argument(help="The machine or person, as requests name it in 'subject'.")
    ],
    model: Annotated[str, typer.Option(help="Only data of this model. Default: all models.")] = "",
    json: Json = False,
) -> None:
    """Delete everything that the ledger has of one subject up to now."""
    with report_errors(json):
        system = open_system()
        _print_done(commands.forget(system, system.select_models(model), subject), json)


@app.command(rich_help_panel=LOCAL)
def up(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME|FOLDER]...",
            help="The models, by name or by the folder of a project, such as ./pump-failure. The "
            "first one answers gRPC clients that name no host. Default: the models of the last "
            "'up', or all declared models.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Start the local system. If it runs already, start what is missing or has changed.

    Settings of an earlier 'up' stay in force until they are given again.
    """
    with report_errors(json, verbose=True):
        started = start_system(local_home(), tuple(models or ()))
        endpoints = without_passwords(started)
        print_result(endpoints, json, lambda: print_endpoints(console, endpoints))


@app.command(rich_help_panel=LOCAL)
def down(json: Json = False) -> None:
    """Stop the local system; its data stays."""
    with report_errors(json, verbose=True):
        stop_system(local_home())
        _print_done("everything is stopped", json)
