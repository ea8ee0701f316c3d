"""`watchkeeper`: every command, each with ``--json`` for programs."""

from collections.abc import Callable
from importlib import metadata
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from watchkeeper.cli import orders
from watchkeeper.cli.code import train_for_code
from watchkeeper.cli.down import down as stop_system
from watchkeeper.cli.explain import print_chain, read_chain
from watchkeeper.cli.history import print_history
from watchkeeper.cli.installation import Installation, local_home, open_installation
from watchkeeper.cli.status import (
    print_endpoints,
    print_status,
    read_status,
    without_passwords,
)
from watchkeeper.cli.telling import JSON, Commands, clear_errors
from watchkeeper.cli.up import up as start_system
from watchkeeper.ledger.events import history as read_history

app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, help=__doc__)
console = Console()

Json = Annotated[bool, typer.Option(JSON, help="Print JSON for programs.")]
Model = Annotated[str, typer.Argument(help="The model; may be left out when there is only one.")]
Models = Annotated[
    list[str] | None, typer.Argument(help="The models; the first answers where none is named.")
]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"watchkeeper {metadata.version('watchkeeper-cli')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take what is said before any command."""


def _show(value: Any, as_json: bool, show: Callable[[], None]) -> None:
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
    else:
        show()


def _open(model: str) -> tuple[Installation, str]:
    """Connect to the system, and settle which of its models is meant."""
    installation = open_installation()
    meant = installation.meant(model)
    if len(meant) != 1:
        raise orders.OrderError(f"which model? There are {', '.join(meant)}")
    return installation, meant[0]


@app.command()
def status(json: Json = False) -> None:
    """Show what serves, what rolls out, what drifts, and where things are."""
    with clear_errors(json):
        found = read_status(open_installation())
        _show(found, json, lambda: print_status(console, found))


@app.command()
def history(
    model: Annotated[str, typer.Argument(help="The model; all of them without it.")] = "",
    json: Json = False,
) -> None:
    """Show every decision, oldest first."""
    with clear_errors(json):
        installation = open_installation()
        models = installation.meant(model)
        found = [event for name in models for event in read_history(installation.ledger, name)]
        events = sorted(found, key=lambda event: event.time)
        _show(events, json, lambda: print_history(console, events))


@app.command()
def explain(prediction_id: str, json: Json = False) -> None:
    """Show the chain behind one prediction: version, training, data, trigger, traffic steps."""
    with clear_errors(json):
        chain = read_chain(open_installation(), prediction_id)
        _show(chain, json, lambda: print_chain(console, chain))


@app.command()
def train(
    model: Model = "",
    *,
    parameter: Annotated[
        list[str] | None, typer.Option("--set", help="A parameter of the model, as key=value.")
    ] = None,
    every_model: Annotated[bool, typer.Option("--every-model", help="Train all models.")] = False,
    for_code: Annotated[
        str, typer.Option(help="Only what has no version of this version of the code; once.")
    ] = "",
    wait: Annotated[
        float, typer.Option(help="With --for-code: seconds that the system may take to answer.")
    ] = 0.0,
    json: Json = False,
) -> None:
    """Start a training run by hand, or because the code is new."""
    with clear_errors(json):
        if for_code:
            if parameter:
                raise orders.OrderError("--set is for runs by hand, --for-code is not one")
            if every_model == bool(model):
                raise orders.OrderError("--for-code goes with a model, or with --every-model")
            told = train_for_code(for_code, model, wait)
            _show(told, json, lambda: console.print("\n".join(each.said for each in told)))
            return
        if every_model:
            raise orders.OrderError("--every-model goes with --for-code")
        installation, model = _open(model)
        name = orders.train(installation, model, _pairs(parameter or []))
        _show({"run": name}, json, lambda: console.print(f"training run {name} started"))


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not key or not separator:
            raise orders.OrderError(f"--set {text!r}: expected key=value")
        pairs[key] = value
    return pairs


@app.command()
def promote(
    model: Model = "",
    version: Annotated[int | None, typer.Option(help="Default: the candidate.")] = None,
    json: Json = False,
) -> None:
    """Take a version to production: the candidate at once, another one in steps."""
    with clear_errors(json):
        installation, model = _open(model)
        _tell(orders.promote(installation, model, version), json)


@app.command()
def abort(model: Model = "", json: Json = False) -> None:
    """Take the candidate off its traffic."""
    with clear_errors(json):
        installation, model = _open(model)
        _tell(orders.abort(installation, model), json)


@app.command()
def rollback(model: Model = "", json: Json = False) -> None:
    """Leave production for the previous version."""
    with clear_errors(json):
        installation, model = _open(model)
        _tell(orders.rollback(installation, model), json)


@app.command()
def pause(model: Model = "", json: Json = False) -> None:
    """Hold a rollout where it is."""
    with clear_errors(json):
        installation, model = _open(model)
        _tell(orders.pause(installation, model, paused=True), json)


@app.command()
def resume(model: Model = "", json: Json = False) -> None:
    """Let a paused rollout go on."""
    with clear_errors(json):
        installation, model = _open(model)
        _tell(orders.pause(installation, model, paused=False), json)


@app.command()
def forget(
    subject: Annotated[str, typer.Argument(help="The machine or person, as requests name it.")],
    model: Annotated[str, typer.Option(help="Default: all models.")] = "",
    json: Json = False,
) -> None:
    """Delete what the ledger keeps of one subject up to now."""
    with clear_errors(json):
        installation = open_installation()
        _tell(orders.forget(installation, installation.meant(model), subject), json)


def _tell(what: str, as_json: bool) -> None:
    _show({"done": what}, as_json, lambda: console.print(what))


@app.command()
def up(models: Models = None, json: Json = False) -> None:
    """Start the local system, or adopt the one that runs.

    Models and settings that are not given now are as they were given last.
    """
    with clear_errors(json, steps=True):
        started = start_system(local_home(), tuple(models or ()))
        endpoints = without_passwords(started)
        _show(endpoints, json, lambda: print_endpoints(console, endpoints))


@app.command()
def down(json: Json = False) -> None:
    """Stop the local system; its data stays."""
    with clear_errors(json, steps=True):
        stop_system(local_home())
        _tell("everything is stopped", json)
