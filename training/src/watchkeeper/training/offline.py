"""What a version should answer: ``python -m watchkeeper.training.offline MODEL VERSION IN OUT``.

IN and OUT are JSON files of columns, ``{"column": [value, ...], ...}``. The answer comes from
the version's sklearn pipelines, as fetched from MLflow, and from nothing else.
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

_TYPES: dict[str, Any] = {"FP64": np.float64, "INT64": np.int64, "BYTES": object}


class BadInputError(ValueError):
    """The input file is not what the version asks for."""


def answer_file(folder: Path, source: Path, target: Path) -> int:
    """Answer the rows of one file into another with the version in ``folder``; return how many.

    Raises:
        BadInputError: the file cannot be read, or is not the columns of the signature.
    """
    model = load(folder)
    columns = _columns(source, model.manifest.signature)
    made = model.answer(columns)  # with the scores that no client sees
    outputs = {
        output.name: made[output.name].tolist() for output in model.manifest.signature.outputs
    }
    target.write_bytes(msgspec.json.encode(outputs))
    return len(next(iter(columns.values())))


def _columns(source: Path, signature: Signature) -> dict[str, Any]:
    try:
        given = msgspec.json.decode(source.read_bytes(), type=dict[str, list[Any]])
    except (OSError, msgspec.MsgspecError) as error:
        raise BadInputError(f"{source}: {error}") from error
    wanted = {column.name for column in signature.inputs}
    if wanted != set(given):
        raise BadInputError(f"{source}: has columns {sorted(given)}, needed are {sorted(wanted)}")
    if len({len(values) for values in given.values()}) != 1:
        raise BadInputError(f"{source}: its columns differ in length")
    try:
        return {c.name: np.array(given[c.name], dtype=_TYPES[c.datatype]) for c in signature.inputs}
    except (TypeError, ValueError) as error:
        raise BadInputError(f"{source}: {error}") from error


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="watchkeeper.training.offline", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("version", type=int)
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    given = parser.parse_args(arguments)
    try:
        uri = model_uri(check_model_name(given.model), given.version)
        with tempfile.TemporaryDirectory() as draft:
            folder = Path(draft) / "version"
            Registry().download(uri, folder)
            rows = answer_file(folder, given.input, given.output)
    except (BadInputError, InvalidNameError) as error:
        return _complain(error, 2)
    except (BrokenVersionError, RegistryError) as error:
        return _complain(error, 1)
    print(f"{uri}: {rows} rows answered into {given.output}", file=sys.stderr)
    return 0


def _complain(error: Exception, code: int) -> int:
    print(f"watchkeeper.training.offline: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
