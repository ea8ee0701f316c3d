"""Engines: from columns to scores.

Each head of a version has an engine: ONNX Runtime if the version has an ONNX form of the head, and
otherwise the library that has fitted it.
"""

import logging
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto

from watchkeeper.core.head import Head
from watchkeeper.core.signature import DTYPES, MISSING_TEXT, Column, Columns, Signature
from watchkeeper.core.version import BrokenVersionError, Manifest
from watchkeeper.serving.forest import ForestGraph, split_at_forest
from watchkeeper.serving.forest_nodes import UnsupportedGraphError
from watchkeeper.serving.merged_inputs import merge_inputs
from watchkeeper.serving.tensors import Array

logger = logging.getLogger(__name__)

# Absolute and relative difference that is allowed between ONNX Runtime and the compiled forest.
# ONNX Runtime may add in FP32 and in another order.
_TOLERANCE = 1e-6
_MISSING_SHARE = 0.1  # of the random values of nullable columns

_DTYPES: dict[int, np.dtype[Any]] = {
    TensorProto.DOUBLE: np.dtype(np.float64),
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.INT64: np.dtype(np.int64),
    TensorProto.STRING: np.dtype(object),
}


class Engine(Protocol):
    """Computes the values of one head."""

    def values(self, columns: Columns) -> Array:
        """Return FP64 values of shape (rows,) or (rows, scores), from columns of shape (rows,).

        Raises:
            ValueError: The model does not accept these values.
        """


class OnnxEngine:
    """Runs the ONNX form of a head.

    The graph has one input per column, with its name and of shape [rows, 1]. The output has the
    name of the score. If possible, the compiled forest runs the trees of the graph: a single row
    takes 10 µs longer, eight rows together take half the time. It runs every request, so that an
    answer does not depend on the size of its batch.
    """

    def __init__(self, path: Path, head: Head, signature: Signature) -> None:
        try:
            model = onnx.load(path)
        except (OSError, DecodeError) as error:
            raise BrokenVersionError(f"{path}: is not an ONNX file: {error}") from error
        columns = {column.name for column in signature.inputs}
        inputs = {each.name: each.type.tensor_type.elem_type for each in model.graph.input}
        outputs = {output.name for output in model.graph.output}
        if not inputs.keys() <= columns or head.score not in outputs:
            raise BrokenVersionError(
                f"{path}: has inputs {sorted(inputs)} and outputs {sorted(outputs)}; the "
                f"signature has {sorted(columns)} and the score is {head.score!r}"
            )
        if not set(inputs.values()) <= _DTYPES.keys():
            types = {name: TensorProto.DataType.Name(kind) for name, kind in inputs.items()}
            supported = ", ".join(TensorProto.DataType.Name(kind) for kind in _DTYPES)
            raise BrokenVersionError(f"{path}: has inputs {types}; supported are {supported}")
        doubles = [name for name, kind in inputs.items() if kind == TensorProto.DOUBLE]
        self._merged = doubles if len(doubles) > 1 else []
        self._single = {name: _DTYPES[inputs[name]] for name in inputs.keys() - {*self._merged}}
        self._score = [head.score]
        try:
            self._merged_name = merge_inputs(model, self._merged) if self._merged else ""
            session = _session(model.SerializeToString())
        except Exception as error:  # the errors of onnxruntime have no common class
            raise BrokenVersionError(f"{path}: ONNX Runtime cannot load it: {error}") from error
        self._runner = self._compiled_forest(path.name, model, signature, session) or session

    def values(self, columns: Columns) -> Array:
        """Run the graph; see :meth:`Engine.values`."""
        return self._run(self._runner, self._feed(columns))

    def _feed(self, columns: Columns) -> dict[str, Array]:
        feed = {
            name: columns[name].astype(dtype, copy=False).reshape(-1, 1)
            for name, dtype in self._single.items()
        }
        if self._merged:
            merged = np.concatenate([columns[name] for name in self._merged], dtype=np.float64)
            feed[self._merged_name] = merged.reshape(len(self._merged), -1).T
        return feed

    def _run(self, runner: Any, feed: dict[str, Array]) -> Array:
        (found,) = runner.run(self._score, feed)
        values = np.asarray(found, dtype=np.float64)
        return values.reshape(-1) if values.shape[1:] == (1,) else values

    def _compiled_forest(
        self, name: str, model: ModelProto, signature: Signature, session: Any
    ) -> "_ForestRunner | None":
        """Return a runner with the compiled forest if it answers random rows like ``session``."""
        try:
            runner = _ForestRunner(split_at_forest(model))
            feed = self._feed(_random_rows(signature))
            expected, got = self._run(session, feed), self._run(runner, feed)
        except UnsupportedGraphError as error:
            logger.info("%s: ONNX Runtime runs the whole graph: %s", name, error)
            return None
        except Exception:  # whatever fails in the forest, ONNX Runtime can run the graph
            logger.warning("%s: ONNX Runtime runs the whole graph", name, exc_info=True)
            return None
        if not np.allclose(expected, got, _TOLERANCE, _TOLERANCE, equal_nan=True):
            difference = np.nanmax(np.abs(expected - got))
            logger.warning(
                "%s: ONNX Runtime runs the whole graph: with the compiled forest, scores differ by "
                "%.1e",
                name,
                difference,
            )
            return None
        logger.info("%s: the compiled forest runs its trees", name)
        return runner


class _ForestRunner:
    """Runs a graph like an ONNX Runtime session, with the compiled forest for its trees."""

    def __init__(self, graph: ForestGraph) -> None:
        self._before, self._after = _session(graph.before), _session(graph.after)
        self._forest, self._sum_name = graph.forest, graph.sum_name

    def run(self, outputs: list[str], feed: dict[str, Array]) -> Any:
        (features,) = self._before.run(None, feed)
        return self._after.run(outputs, {self._sum_name: self._forest.sum_leaves(features)})


def load_engines(folder: Path, manifest: Manifest) -> dict[str, Engine]:
    """Load the engine of each head, by the name of its score.

    Raises:
        BrokenVersionError: A file cannot be loaded, or contains a type that is not trusted.
        MissingLibraryError: A head without ONNX form needs a library that is not installed.
    """
    return {
        head.score: (
            _native_engine(folder, head, manifest)
            if head.onnx is None
            else OnnxEngine(folder / head.onnx, head, manifest.signature)
        )
        for head in manifest.heads
    }


def _native_engine(folder: Path, head: Head, manifest: Manifest) -> Engine:
    # This imports scikit-learn and pandas; most versions need neither.
    from watchkeeper.serving.native_engine import NativeEngine  # noqa: PLC0415

    return NativeEngine(folder, head, [column.name for column in manifest.signature.inputs])


def _session(model: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    # One thread per request: to wake further threads costs more time than they save.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _random_rows(signature: Signature, rows: int = 1000) -> Columns:
    """Draw rows from the ranges of the columns; values of every size where there is no range.

    A tenth of the values of nullable columns are missing.
    """
    random = np.random.default_rng(0)

    def draw(column: Column) -> Array:
        if column.categories:
            return random.choice(np.array(column.categories, dtype=object), rows)
        low, high = column.limits
        if low is None or high is None:
            values = np.clip(100 * random.standard_cauchy(rows), low, high)
        else:
            values = random.uniform(low, high, rows)
        return values.astype(DTYPES[column.datatype])

    def drawn(column: Column) -> Array:
        values = draw(column)
        if column.nullable:
            missing = MISSING_TEXT if column.categories else np.nan
            values[random.random(rows) < _MISSING_SHARE] = missing
        return values

    return {column.name: drawn(column) for column in signature.inputs}
