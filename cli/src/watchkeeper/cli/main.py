"""Watch over models in production: see what happens and why, and steer it.

Every command prints JSON for programs with --json.
"""

from importlib import metadata
from typing import Annotated

import typer

from watchkeeper.cli.cli_output import JsonErrorGroup
from watchkeeper.cli.data_commands import data_app
from watchkeeper.cli.inspect_commands import inspect_app
from watchkeeper.cli.local_commands import local_app
from watchkeeper.cli.project_commands import project_app
from watchkeeper.cli.steer_commands import steer_app

app = typer.Typer(cls=JsonErrorGroup, no_args_is_help=True, add_completion=False, help=__doc__)
for group in (project_app, inspect_app, steer_app, local_app):
    app.add_typer(group)
app.add_typer(data_app, name="data", rich_help_panel="Inspect")


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
