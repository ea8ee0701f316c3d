"""Store the history of plants in the operational database: ``python -m watchkeeper.demo.seed``.

Does nothing for a plant that has a history already, and for a model without a plant. A database
that the user has named is never written, unless the user asks for it with ``--into-source-url``.
"""

import argparse
import sys
from pathlib import Path

from watchkeeper.core.projects import is_folder
from watchkeeper.core.settings import SettingsError
from watchkeeper.demo.plants import (
    DatabaseError,
    PlantError,
    declared,
    find,
    read_plant_settings,
    simulated,
    source_url,
    tables_by_model,
)
from watchkeeper.ledger.errors import hide_password


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m watchkeeper.demo.seed",
        description="Store the history of plants in the operational database.",
    )
    parser.add_argument(
        "models",
        nargs="*",
        help="the models; by default those of WATCHKEEPER_MODELS or of the last 'up', or all",
    )
    parser.add_argument(
        "--into-source-url",
        action="store_true",
        help="store the made-up tables in the database that WATCHKEEPER_SOURCE_URL names",
    )
    parser.add_argument("--data", type=Path, help="a table (CSV) that is the history")
    try:
        _seed(parser.parse_args())
    except (SettingsError, PlantError, DatabaseError) as error:
        print(f"seed: {error}", file=sys.stderr)
        return 1
    return 0


def _seed(arguments: argparse.Namespace) -> None:
    url, settings = source_url(), read_plant_settings()
    shown = hide_password(url)
    models = arguments.models or settings.models or simulated()
    models = [model for model in models if not is_folder(model)]  # a project names its own data
    if unknown := [model for model in models if model not in declared()]:
        raise PlantError(f"no model {unknown[0]!r}; the models are {', '.join(declared())}")
    if settings.source_url and not arguments.into_source_url:
        if arguments.data:
            raise PlantError(
                f"{arguments.data}: WATCHKEEPER_SOURCE_URL names {shown}, so this table is not "
                "stored there; leave one of them out, or give --into-source-url"
            )
        print(f"nothing is made up: WATCHKEEPER_SOURCE_URL names {shown}")
        return
    for model in models:
        if model not in simulated():
            print(f"{model}: has no plant, so nothing is made up")
    with_plant = [model for model in models if model in simulated()]
    for model, data in tables_by_model(with_plant, arguments.data).items():
        print(f"{model}: {find(model).seed(url, data)} in {shown}")


if __name__ == "__main__":
    sys.exit(main())
