"""Engines: from columns to scores.

Each head of a version has its own: ONNX Runtime where training found the ONNX form to agree,
else mlserver-sklearn's model. The latter is changed in two ways. It loads skops, because a
pickle executes whatever it holds; and it is given the columns, because its own way of a
request decodes tensors by guessing and knows no ``decision_function`` or ``score_samples``.
"""

import logging
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto

from watchkeeper.contracts.answer import Columns
from watchkeeper.contracts.signature import Column, Signature
from watchkeeper.contracts.version import BrokenVersionError, Head, Manifest
from watchkeeper.serving.forest import Cut, OtherFormError, cut
from watchkeeper.serving.joined import join
from watchkeeper.serving.tensors import Array

logger = logging.getLogger(__name__)

# How far the parts of a cut graph and the whole may differ, in size or relatively: the whole
# may add up in FP32, in other order.
_TOLERANCE = 1e-6

_DTYPES: dict[int, np.dtype[Any]] = {
    TensorProto.DOUBLE: np.dtype(np.float64),
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.INT64: np.dtype(np.int64),
    TensorProto.STRING: np.dtype(object),
}


class Engine(Protocol):
    """What makes one score."""

    def score(self, columns: Columns) -> Array:
        """Return one FP64 value a row, of shape (rows,), from columns of shape (rows,).

        Raises:
            ValueError: the model does not take these values.
        """


class OnnxEngine:
    """One input a column, named like it, of shape [rows, 1]; the output is named by the score.

    Where the graph can be cut around its trees, its parts run instead: a row alone takes 10 us
    more so, eight together take half. Always, so that no answer depends on what came with it.
    """

    def __init__(self, path: Path, head: Head, signature: Signature) -> None:
        try:
            model = onnx.load(path)
        except (OSError, DecodeError) as error:
            raise BrokenVersionError(f"{path}: is no ONNX file: {error}") from error
        columns = {column.name for column in signature.inputs}
        inputs = {given.name: given.type.tensor_type.elem_type for given in model.graph.input}
        outputs = {output.name for output in model.graph.output}
        if not inputs.keys() <= columns or head.score not in outputs:
            raise BrokenVersionError(
                f"{path}: takes {sorted(inputs)} and makes {sorted(outputs)}; the signature "
                f"has {sorted(columns)} and the head is {head.score!r}"
            )
        if not set(inputs.values()) <= _DTYPES.keys():
            kinds = {name: TensorProto.DataType.Name(kind) for name, kind in inputs.items()}
            served = ", ".join(TensorProto.DataType.Name(kind) for kind in _DTYPES)
            raise BrokenVersionError(f"{path}: takes {kinds}; served are {served}")
        doubles = [name for name, kind in inputs.items() if kind == TensorProto.DOUBLE]
        self._joined = doubles if len(doubles) > 1 else []
        self._single = {name: _DTYPES[inputs[name]] for name in inputs.keys() - {*self._joined}}
        self._score = [head.score]
        try:
            self._name = join(model, self._joined) if self._joined else ""
            whole = _session(model.SerializeToString())
        except Exception as error:  # onnxruntime has no common class of its errors
            raise BrokenVersionError(f"{path}: ONNX Runtime cannot load it: {error}") from error
        self._graph = self._cut(path.name, model, signature, whole) or whole

    def score(self, columns: Columns) -> Array:
        """Run the graph."""
        return self._run(self._graph, self._feed(columns))

    def _feed(self, columns: Columns) -> dict[str, Array]:
        feed = {
            name: columns[name].astype(dtype, copy=False).reshape(-1, 1)
            for name, dtype in self._single.items()
        }
        if self._joined:
            together = np.concatenate([columns[name] for name in self._joined], dtype=np.float64)
            feed[self._name] = together.reshape(len(self._joined), -1).T
        return feed

    def _run(self, graph: Any, feed: dict[str, Array]) -> Array:
        (scores,) = graph.run(self._score, feed)
        return np.asarray(scores, dtype=np.float64).reshape(-1)

    def _cut(
        self, name: str, model: ModelProto, signature: Signature, whole: Any
    ) -> "_Parts | None":
        """Return the graph in parts if that can be, and if they answer as the whole does."""
        try:
            parts = _Parts(cut(model))
            feed = self._feed(_drawn(signature))
            expected, parted = self._run(whole, feed), self._run(parts, feed)
        except OtherFormError as error:
            logger.info("%s: ONNX Runtime alone runs it: %s", name, error)
            return None
        except Exception:  # the whole graph runs, whatever the parts stumble over
            logger.warning("%s: ONNX Runtime alone runs it", name, exc_info=True)
            return None
        if not np.allclose(expected, parted, _TOLERANCE, _TOLERANCE, equal_nan=True):
            apart = np.nanmax(np.abs(expected - parted))
            logger.warning(
                "%s: ONNX Runtime alone runs it: in parts, scores differ by %.1e", name, apart
            )
            return None
        logger.info("%s: its trees run without branches", name)
        return parts


class _Parts:
    """A graph in parts, run like the session of the whole."""

    def __init__(self, parts: Cut) -> None:
        self._front, self._back = _session(parts.front), _session(parts.back)
        self._forest, self._total = parts.forest, parts.total

    def run(self, names: list[str], feed: dict[str, Array]) -> Any:
        (features,) = self._front.run(None, feed)
        return self._back.run(names, {self._total: self._forest.add_up(features)})


def _session(model: Path | bytes) -> Any:
    options = onnxruntime.SessionOptions()
    # One request runs on one thread: more of them cost more in waking than they save.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _drawn(signature: Signature, rows: int = 1000) -> Columns:
    """Draw rows from all over the ranges; where there is no end, values of every size."""
    random = np.random.default_rng(0)

    def draw(column: Column) -> Array:
        if column.categories:
            return random.choice(np.array(column.categories, dtype=object), rows)
        low, high = column.minimum, column.maximum
        if low is None or high is None:
            values = np.clip(100 * random.standard_cauchy(rows), low, high)
        else:
            values = random.uniform(low, high, rows)
        return values.astype(np.int64) if column.datatype == "INT64" else values

    return {column.name: draw(column) for column in signature.inputs}


def load_engines(folder: Path, manifest: Manifest) -> dict[str, Engine]:
    """Load the engine of every head, by score.

    Raises:
        BrokenVersionError: a file cannot be loaded, or asks for a type that is not trusted.
    """
    return {
        head.score: (
            _sklearn(folder / head.pipeline, head, manifest)
            if head.onnx is None
            else OnnxEngine(folder / head.onnx, head, manifest.signature)
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
