"""The commands that steer the loop: train, adopt, promote, abort, roll back, pause, forget."""

from typing import Annotated

import typer

from watchkeeper.cli import commands
from watchkeeper.cli.arguments import Model, Parameters
from watchkeeper.cli.cli_output import Json, console, print_done, print_result, report_errors
from watchkeeper.cli.system import open_model, open_system

PANEL = "Steer"
steer_app = typer.Typer()


@steer_app.command(rich_help_panel=PANEL)
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


@steer_app.command(rich_help_panel=PANEL)
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


@steer_app.command(rich_help_panel=PANEL)
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
        print_done(commands.promote(system, model, version), json)


@steer_app.command(rich_help_panel=PANEL)
def abort(model: Model = "", json: Json = False) -> None:
    """Abort the rollout of the candidate; production gets all traffic."""
    with report_errors(json):
        system, model = open_model(model)
        print_done(commands.abort(system, model), json)


@steer_app.command(rich_help_panel=PANEL)
def rollback(model: Model = "", json: Json = False) -> None:
    """Roll production back to the previous version."""
    with report_errors(json):
        system, model = open_model(model)
        print_done(commands.rollback(system, model), json)


@steer_app.command(rich_help_panel=PANEL)
def pause(model: Model = "", json: Json = False) -> None:
    """Pause the rollout of a model; its traffic stays as it is."""
    with report_errors(json):
        system, model = open_model(model)
        print_done(commands.set_paused(system, model, paused=True), json)


@steer_app.command(rich_help_panel=PANEL)
def resume(model: Model = "", json: Json = False) -> None:
    """Resume a paused rollout."""
    with report_errors(json):
        system, model = open_model(model)
        print_done(commands.set_paused(system, model, paused=False), json)


@steer_app.command(rich_help_panel=PANEL)
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
        print_done(commands.forget(system, system.select_models(model), subject), json)
