"""The commands ``watchkeeper data``: training tables, and views of the ledger."""

import os
from pathlib import Path
from typing import Annotated

import typer

from watchkeeper.cli import data
from watchkeeper.cli.cli_output import Json, JsonErrorGroup, print_result, report_errors
from watchkeeper.cli.system import open_model, read_cli_settings
from watchkeeper.ledger.views import create_views, statements

data_app = typer.Typer(
    cls=JsonErrorGroup,
    no_args_is_help=True,
    help="The tables that versions were trained on, and predictions in SQL.",
)


@data_app.command("pull")
def data_pull(
    model: Annotated[str, typer.Argument(help="The model.")],
    version: Annotated[int, typer.Argument(min=1, help="The version.")],
    *,
    to: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write it. Default: MODEL-vVERSION.parquet."),
    ] = None,
    store: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="URL",
            help="Where the tables are now, if they were moved. Default: where the version says.",
        ),
    ] = "",
    json: Json = False,
) -> None:
    """Restore the table that a version was trained on, and verify it.

    It has the rows of the history and of the predictions that the training run has read.
    """
    with report_errors(json):
        system, model = open_model(model)
        file = to or Path(f"{model}-v{version}.parquet")
        found = data.snapshot_of(system, model, version)
        settings = data.store_settings(read_cli_settings(), os.environ, store)
        data.restore(found, settings, file)
        shown = {"file": str(file), "rows": found.rows, "sha256": found.sha256}
        text = f"{file}: {found.rows} rows, verified by SHA-256 {found.sha256}"
        print_result(shown, json, lambda: print(text))


@data_app.command("views")
def data_views(
    model: Annotated[str, typer.Argument(help="The model.")] = "",
    *,
    create: Annotated[
        bool, typer.Option("--create", help="Create them in the ledger, or replace them.")
    ] = False,
    json: Json = False,
) -> None:
    """Print the SQL that creates the views of a model in the ledger.

    One has the predictions, with a column for each input and output. The other one compares canary
    and stable in each step of a rollout.
    """
    with report_errors(json):
        system, model = open_model(model)
        signature = data.production_signature(system, model)
        found = statements(system.ledger, model, signature)
        if create:
            create_views(system.ledger, model, signature)
        text = "the views are created" if create else ";\n".join([*found, ""])
        print_result({"statements": found, "created": create}, json, lambda: print(text, end=""))
