"""The commands that start and stop the local system."""

from typing import Annotated

import typer

from watchkeeper.cli.cli_output import Json, console, print_done, print_result, report_errors
from watchkeeper.cli.down import down as stop_system
from watchkeeper.cli.status import print_endpoints, without_passwords
from watchkeeper.cli.system import local_home
from watchkeeper.cli.up import up as start_system

PANEL = "Local system"
local_app = typer.Typer()


@local_app.command(rich_help_panel=PANEL)
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


@local_app.command(rich_help_panel=PANEL)
def down(json: Json = False) -> None:
    """Stop the local system; its data stays."""
    with report_errors(json, verbose=True):
        stop_system(local_home())
        print_done("everything is stopped", json)
