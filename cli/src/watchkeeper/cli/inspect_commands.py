"""The commands that show what happens and why."""

import contextlib
import os
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer

from watchkeeper.cli.arguments import Model
from watchkeeper.cli.cli_output import Json, console, print_result, report_errors
from watchkeeper.cli.commands import CommandError
from watchkeeper.cli.delivery import wait_for_delivery
from watchkeeper.cli.explain import print_explanation, read_explanation
from watchkeeper.cli.history import EventPrinter, follow_events, parse_since, read_events
from watchkeeper.cli.local_settings import needs_keys
from watchkeeper.cli.sample import Form, read_sample, render
from watchkeeper.cli.status import print_status, read_status
from watchkeeper.cli.system import open_model, open_system, read_cli_settings
from watchkeeper.core.events import as_json as event_as_json

PANEL = "Inspect"
inspect_app = typer.Typer()


@inspect_app.command(rich_help_panel=PANEL)
def status(json: Json = False) -> None:
    """Show versions, traffic, rollouts, drift and addresses."""
    with report_errors(json):
        found = read_status(open_system())
        print_result(found, json, lambda: print_status(console, found))


@inspect_app.command(rich_help_panel=PANEL)
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


@inspect_app.command(rich_help_panel=PANEL)
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


@inspect_app.command(rich_help_panel=PANEL)
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
            raise CommandError("give one of --curl, --python and --grpc")
        form: Form = "python" if python else "grpc" if grpc else "curl"
        system, model = open_model(model)
        needs_key = needs_keys(read_cli_settings().home, os.environ)
        text = render(read_sample(system, model, needs_key=needs_key), form)
        print_result({"model": model, "form": form, "text": text}, json, lambda: print(text))


@inspect_app.command(rich_help_panel=PANEL)
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
