"""What versions should answer: ``python -m watchkeeper.training.offline MODEL IN OUT``.

IN and OUT are JSON files of columns by version, ``{"version": {"column": [value, ...]}, ...}``. The
answers come from each version's sklearn pipelines, as fetched from MLflow, and from nothing else.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from watchkeeper.contracts.names import InvalidNameError, check_model_name, model_uri
from watchkeeper.contracts.signature import Signature
from watchkeeper.contracts.version import BrokenVersionError
from watchkeeper.pipeline import load
from watchkeeper.registry import Registry, RegistryError

Columns = dict[str, list[Any]]

_TYPES: dict[str, Any] = {"FP64": np.float64, "INT64": np.int64, "BYTES": object}


class BadInputError(ValueError):
    """The input file is not what a version asks for."""


def read(source: Path) -> dict[int, Columns]:
    """Read the columns for each version.

    Raises:
        BadInputError: the file cannot be read, or is not columns by version.
    """
    try:
        return msgspec.json.decode(source.read_bytes(), type=dict[int, Columns])
    except (OSError, msgspec.MsgspecError) as error:
        raise BadInputError(f"{source}: {error}") from error


def answer(folder: Path, given: Columns) -> Columns:
    """Return what the version in ``folder`` answers to the rows of some columns.

    Raises:
        BadInputError: they are not the columns of its signature.
    """
    model = load(folder)
    signature = model.manifest.signature
    made = model.answer(_arrays(given, signature))  # with the scores that no client sees
    return {output.name: made[output.name].tolist() for output in signature.outputs}


def _arrays(given: Columns, signature: Signature) -> dict[str, Any]:
    wanted = {column.name for column in signature.inputs}
    if wanted != set(given):
        raise BadInputError(f"has columns {sorted(given)}, needed are {sorted(wanted)}")
    if len({len(values) for values in given.values()}) != 1:
        raise BadInputError("its columns differ in length")
    try:
        return {c.name: np.array(given[c.name], dtype=_TYPES[c.datatype]) for c in signature.inputs}
    except (TypeError, ValueError) as error:
        raise BadInputError(str(error)) from error


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="watchkeeper.training.offline", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    given = parser.parse_args(arguments)
    answers: dict[int, Columns] = {}
    try:
        model = check_model_name(given.model)
        for version, columns in read(given.input).items():
            try:
                answers[version] = _answer_of(model_uri(model, version), columns)
            except BadInputError as error:
                raise BadInputError(f"{given.input}: version {version}: {error}") from error
    except (BadInputError, InvalidNameError) as error:
        return _complain(error, 2)
    except (BrokenVersionError, RegistryError) as error:
        return _complain(error, 1)
    given.output.write_bytes(msgspec.json.encode(answers))
    return 0


def _answer_of(uri: str, columns: Columns) -> Columns:
    with tempfile.TemporaryDirectory() as draft:
        folder = Path(draft) / "version"
        Registry().download(uri, folder)
        return answer(folder, columns)


def _complain(error: Exception, code: int) -> int:
    print(f"watchkeeper.training.offline: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
