"""Offline predictions of versions: ``python -m watchkeeper.training.offline MODEL IN OUT``.

IN and OUT are JSON files of columns by version, ``{"version": {"column": [value, ...]}, ...}``. The
answers come from the pipelines of each version in MLflow, without a server.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from watchkeeper.core.exit_codes import EXIT_FATAL, EXIT_RETRY, EXIT_SUCCESS
from watchkeeper.core.names import InvalidNameError, check_model_name, model_uri
from watchkeeper.core.signature import Signature
from watchkeeper.core.version import BrokenVersionError
from watchkeeper.pipeline import load
from watchkeeper.registry import Registry, RegistryError

Columns = dict[str, list[Any]]


class BadInputError(ValueError):
    """The input file does not fit the version's signature."""


def read_columns(source: Path) -> dict[int, Columns]:
    """Read the columns for each version.

    Raises:
        BadInputError: the file cannot be read, or does not hold columns by version.
    """
    try:
        return msgspec.json.decode(source.read_bytes(), type=dict[int, Columns])
    except (OSError, msgspec.MsgspecError) as error:
        raise BadInputError(f"{source}: {error}") from error


def answer(folder: Path, given: Columns) -> Columns:
    """Return the answer of the version in ``folder`` to rows of request columns.

    Raises:
        BadInputError: the columns are not those of its signature.
    """
    model = load(folder)
    signature = model.manifest.signature
    answered = model.answer(_arrays(given, signature))  # includes hidden scores
    return {output.name: answered[output.name].tolist() for output in signature.outputs}


def _arrays(given: Columns, signature: Signature) -> dict[str, Any]:
    needed = {column.name for column in signature.inputs}
    if needed != set(given):
        raise BadInputError(f"has columns {sorted(given)}, needed are {sorted(needed)}")
    if len({len(values) for values in given.values()}) != 1:
        raise BadInputError("its columns differ in length")
    try:
        return {c.name: c.array(given[c.name]) for c in signature.inputs}
    except (TypeError, ValueError) as error:
        raise BadInputError(str(error)) from error


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="watchkeeper.training.offline",
        description="Answer rows as each version answers them, without a server.",
    )
    parser.add_argument("model", help="name of the model")
    parser.add_argument("input", type=Path, help="JSON file of columns by version")
    parser.add_argument("output", type=Path, help="JSON file for the answers by version")
    options = parser.parse_args(arguments)
    answers: dict[int, Columns] = {}
    try:
        model = check_model_name(options.model)
        for version, columns in read_columns(options.input).items():
            try:
                answers[version] = _answer_of(model_uri(model, version), columns)
            except BadInputError as error:
                raise BadInputError(f"{options.input}: version {version}: {error}") from error
    except (BadInputError, InvalidNameError) as error:
        return _fail(error, EXIT_FATAL)
    except (BrokenVersionError, RegistryError) as error:
        return _fail(error, EXIT_RETRY)
    options.output.write_bytes(msgspec.json.encode(answers))
    return EXIT_SUCCESS


def _answer_of(uri: str, columns: Columns) -> Columns:
    with tempfile.TemporaryDirectory() as workspace:
        folder = Path(workspace) / "version"
        Registry().download(uri, folder)
        return answer(folder, columns)


def _fail(error: Exception, code: int) -> int:
    print(f"watchkeeper.training.offline: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
