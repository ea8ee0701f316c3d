"""Check the parameters of a run before it starts.

``python -m watchkeeper.training.check_parameters MODEL --set NAME=VALUE``. Exit code 0: a run
accepts them. 2: it does not, and the message lists the known parameters.
"""

import argparse
import sys

from watchkeeper.core.exit_codes import EXIT_FATAL, EXIT_SUCCESS
from watchkeeper.training import CannotTrainError
from watchkeeper.training.models import find, parameters_of


def main(arguments: list[str] | None = None) -> int:
    """Check the model's declaration and the parameters; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="watchkeeper.training.check_parameters", description="Check a run's parameters."
    )
    parser.add_argument("model", help="name of a declared model, for example pump-failure")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a parameter"
    )
    options = parser.parse_args(arguments)
    try:
        parameters_of(find(options.model), options.set)
    except CannotTrainError as error:
        print(error, file=sys.stderr)
        return EXIT_FATAL
    return EXIT_SUCCESS


if __name__ == "__main__":
    sys.exit(main())
