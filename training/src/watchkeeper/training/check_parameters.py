"""Check models before a run starts: ``python -m watchkeeper.training.check_parameters MODEL ...``.

Exit code 0: the models are declared, and a run accepts the parameters. 2: the message lists the
declared models or the known parameters.
"""

import argparse
import sys

from watchkeeper.core.exit_codes import EXIT_FATAL, EXIT_SUCCESS
from watchkeeper.training import CannotTrainError
from watchkeeper.training.models import find, parameters_of


def main(arguments: list[str] | None = None) -> int:
    """Check the declaration of each model and the parameters; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="watchkeeper.training.check_parameters",
        description="Check models and a run's parameters.",
    )
    parser.add_argument(
        "models", nargs="+", metavar="model", help="name of a declared model, such as pump-failure"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a parameter"
    )
    options = parser.parse_args(arguments)
    status = EXIT_SUCCESS
    for model in options.models:
        try:
            parameters_of(find(model), options.set)
        except CannotTrainError as error:
            print(error, file=sys.stderr)
            status = EXIT_FATAL
    return status


if __name__ == "__main__":
    sys.exit(main())
