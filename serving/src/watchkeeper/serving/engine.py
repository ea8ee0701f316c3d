"""Engines: from columns to scores.

Each head of a version has its own: ONNX Runtime where training found the ONNX form to agree,
else mlserver-sklearn's model. The latter is changed in two ways. It loads skops, because a
pickle executes whatever it holds; and it is given the columns, because its own way of a
request decodes tensors by guessing and knows no ``decision_function`` or ``score_samples``.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime

from watchkeeper.contracts.answer import Columns
from watchkeeper.contracts.version import BrokenVersionError, Head, Manifest
from watchkeeper.serving.tensors import Array

_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(double)": np.dtype(np.float64),
    "tensor(float)": np.dtype(np.float32),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(string)": np.dtype(object),
}


class Engine(Protocol):
    """What makes one score."""

    def score(self, columns: Columns) -> Array:
        """Return one FP64 value a row, of shape (rows,), from columns of shape (rows,).

        Raises:
            ValueError: the model does not take these values.
        """


class OnnxEngine:
    """One input a column, named like it, of shape [rows, 1]; the output is named by the score."""

    def __init__(self, path: Path, head: Head, columns: frozenset[str]) -> None:
        options = onnxruntime.SessionOptions()
        # One request runs on one thread: more of them cost more in waking than they save.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has no common class of its errors
            raise BrokenVersionError(f"{path}: ONNX Runtime cannot load it: {error}") from error
        inputs = {given.name: given.type for given in self._session.get_inputs()}
        outputs = {output.name for output in self._session.get_outputs()}
        if not inputs.keys() <= columns or head.score not in outputs:
            raise BrokenVersionError(
                f"{path}: takes {sorted(inputs)} and makes {sorted(outputs)}; the signature "
                f"has {sorted(columns)} and the head is {head.score!r}"
            )
        if not set(inputs.values()) <= _DTYPES.keys():
            raise BrokenVersionError(f"{path}: takes {inputs}; served are {', '.join(_DTYPES)}")
        self._inputs = {name: _DTYPES[kind] for name, kind in inputs.items()}
        self._score = [head.score]

    def score(self, columns: Columns) -> Array:
        """Run the graph."""
        feed = {
            name: columns[name].astype(dtype, copy=False).reshape(-1, 1)
            for name, dtype in self._inputs.items()
        }
        (scores,) = self._session.run(self._score, feed)
        return np.asarray(scores, dtype=np.float64).reshape(-1)


def load_engines(folder: Path, manifest: Manifest) -> dict[str, Engine]:
    """Load the engine of every head, by score.

    Raises:
        BrokenVersionError: a file cannot be loaded, or asks for a type that is not trusted.
    """
    columns = frozenset(column.name for column in manifest.signature.inputs)
    return {
        head.score: (
            _sklearn(folder / head.pipeline, head, manifest)
            if head.onnx is None
            else OnnxEngine(folder / head.onnx, head, columns)
        )
        for head in manifest.heads
    }


def _sklearn(path: Path, head: Head, manifest: Manifest) -> Engine:
    # Only here: it imports scikit-learn and pandas, and most versions need neither.
    from watchkeeper.serving.fallback import SkopsEngine  # noqa: PLC0415

    return SkopsEngine(path, head, [column.name for column in manifest.signature.inputs])


def scores(engines: dict[str, Engine], columns: Columns) -> Columns:
    """Make all scores of a version."""
    made: dict[str, Any] = {score: engine.score(columns) for score, engine in engines.items()}
    return made
