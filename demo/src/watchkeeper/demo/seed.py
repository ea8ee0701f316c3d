"""Fill the operational database with the past, once: ``python -m watchkeeper.demo.seed MODEL``.

Without a model for all that the system is told to have, or else for all there are worlds of.
"""

import argparse
import sys
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from watchkeeper.contracts.settings import SettingsError
from watchkeeper.demo.worlds import WORLDS, WorldError, find, read_given, source_url, tables


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m watchkeeper.demo.seed", description=__doc__)
    parser.add_argument("models", nargs="*", help="the models to seed for")
    parser.add_argument("--data", type=Path, help="the AI4I 2020 table (CSV) as history")
    arguments = parser.parse_args()
    try:
        url = source_url()
        shown = make_url(url).render_as_string(hide_password=True)
        models = arguments.models or [m for m in read_given().models if m in WORLDS] or [*WORLDS]
        for model, data in tables(models, arguments.data).items():
            print(f"{model}: {find(model).seed(url, data)} in {shown}")
    except (SettingsError, WorldError, SQLAlchemyError) as error:
        print(f"seed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
