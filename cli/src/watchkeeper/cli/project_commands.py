"""The commands that make a model: ``watchkeeper new`` and ``watchkeeper check``."""

from typing import Annotated

import typer

from watchkeeper.cli import training_commands
from watchkeeper.cli.arguments import Parameters
from watchkeeper.cli.cli_output import JSON, Json, report_errors
from watchkeeper.cli.system import local_home

PANEL = "Make a model"
project_app = typer.Typer()


@project_app.command(rich_help_panel=PANEL)
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


@project_app.command(rich_help_panel=PANEL)
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
