"""Check a run's parameters before it starts: ``python -m watchkeeper.training.check MODEL``.

Exit code 0: a run would take them. 2: it would not, the message says which there are.
"""

import argparse
import sys

from watchkeeper.contracts.exits import DONE, GIVE_UP
from watchkeeper.training import CannotTrainError
from watchkeeper.training.models import find, parameters_of


def main(arguments: list[str] | None = None) -> int:
    """Check what the command line sets; return the exit code."""
    parser = argparse.ArgumentParser(prog="watchkeeper.training.check")
    parser.add_argument("model")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    given = parser.parse_args(arguments)
    try:
        parameters_of(find(given.model), given.set)
    except CannotTrainError as error:
        print(error, file=sys.stderr)
        return GIVE_UP
    return DONE


if __name__ == "__main__":
    sys.exit(main())
