"""Arguments and options that several commands have."""

from typing import Annotated

import typer

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
