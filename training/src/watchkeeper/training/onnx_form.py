"""The ONNX form of a pipeline.

A form has one input tensor of shape [rows, 1] per request column, with the column's name, and one
output with the name of the head: the score, of shape [rows], or several, [rows, scores].

skl2onnx converts the steps before the last one, linear models and neural networks. Trees are read
from the library that has fitted them (:mod:`watchkeeper.pipeline.trees`), because converters are
wrong near thresholds and for missing values, without an error.
"""

from typing import Any, Final

import numpy as np
import onnxruntime
import pandas as pd
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, Int64TensorType, StringTensorType
from skl2onnx.helpers.onnx_helper import select_model_inputs_outputs
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from watchkeeper.core.head import Head
from watchkeeper.core.signature import DTYPES, Column
from watchkeeper.core.tasks import task_of
from watchkeeper.pipeline.frameworks import framework_of, nested
from watchkeeper.pipeline.trees import Trees, UnsupportedTreesError
from watchkeeper.training import onnx_imputer
from watchkeeper.training.onnx_trees import IR_VERSION, OPSETS, Fragment, add_trees

onnx_imputer.register()

_TENSORS = {"f": DoubleTensorType, "i": Int64TensorType, "O": StringTensorType}  # by NumPy's kind
PART_ROWS: Final = 50_000  # that ONNX Runtime gets at once, to need little memory
_SKL2ONNX_OPSETS = {"": 18, "ai.onnx.ml": 3}

# What skl2onnx converts in double precision, and ONNX Runtime then computes faster than the
# library. Neighbours are slower in ONNX Runtime, kernels have no double precision there, and of
# trees inside of other estimators skl2onnx makes float32.
CONVERTED_BY_SKL2ONNX: Final = frozenset(
    {
        "BayesianRidge",
        "CalibratedClassifierCV",
        "ElasticNet",
        "ElasticNetCV",
        "GaussianNB",
        "HuberRegressor",
        "Lasso",
        "LassoCV",
        "LinearRegression",
        "LinearSVC",
        "LinearSVR",
        "LogisticRegression",
        "LogisticRegressionCV",
        "MLPClassifier",
        "MLPRegressor",
        "Perceptron",
        "PoissonRegressor",
        "QuantileRegressor",
        "Ridge",
        "RidgeCV",
        "RidgeClassifier",
        "SGDClassifier",
        "SGDRegressor",
        "StackingClassifier",
        "StackingRegressor",
        "VotingClassifier",
        "VotingRegressor",
    }
)


class NoOnnxFormError(ValueError):
    """The pipeline has no ONNX form; the message says why."""


def to_onnx(pipeline: Pipeline, head: Head, columns: tuple[Column, ...]) -> bytes:
    """Convert a fitted pipeline to an ONNX file.

    Raises:
        NoOnnxFormError: nothing converts the estimator.
        Exception: those of skl2onnx, for steps that it cannot convert.
    """
    estimator = pipeline.steps[-1][1]
    form = framework_of(estimator).form(estimator)
    if form is not None:
        return form
    trees = trees_of(pipeline, head)
    model = (
        _converted(pipeline, head, columns)
        if trees is None
        else _with_trees(pipeline, head, columns, trees)
    )
    return bytes(model.SerializeToString())


def trees_of(pipeline: Pipeline, head: Head) -> Trees | None:
    """Return the trees of a pipeline's last step, or None if its form is made without them.

    Raises:
        NoOnnxFormError: neither is possible.
    """
    estimator = pipeline.steps[-1][1]
    try:
        return framework_of(estimator).trees(estimator, head.method)
    except UnsupportedTreesError as error:
        if framework_of(estimator).form(estimator) is not None:
            return None
        others = [x for x in nested(estimator) if type(x).__name__ not in CONVERTED_BY_SKL2ONNX]
        if not others:
            return None
        names = ", ".join(sorted({type(x).__name__ for x in others}))
        raise NoOnnxFormError(f"{error}; no other exact conversion of {names} is known") from error


def difference(form: bytes, head: Head, rows: pd.DataFrame, expected: NDArray[Any]) -> float:
    """Return how far a form's values of request columns are from ``expected``.

    See :func:`relative`.
    """
    runner = session(form)
    needed = [each.name for each in runner.get_inputs()]
    parts = [rows[start : start + PART_ROWS] for start in range(0, len(rows), PART_ROWS)]
    scores = [
        np.asarray(runner.run([head.score], {name: part[[name]].to_numpy() for name in needed})[0])
        for part in parts or [rows]
    ]
    return relative(np.concatenate(scores), expected)


def session(form: bytes) -> Any:
    """Return a session of ONNX Runtime with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(form, options, providers=["CPUExecutionProvider"])


def relative(scores: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the largest difference of scores of the same shape, as a share of the largest score.

    Scores below 1, such as probabilities, are compared absolutely. A score that is not finite is
    infinitely far from a finite one.
    """
    if not len(expected):
        return 0.0
    apart = np.where(np.isfinite(expected), np.abs(scores - expected), 0.0)
    largest = float(np.max(np.abs(expected), where=np.isfinite(expected), initial=1.0))
    return float(np.nan_to_num(apart, nan=np.inf).max()) / largest


def _with_trees(
    pipeline: Pipeline, head: Head, columns: tuple[Column, ...], trees: Trees
) -> ModelProto:
    """Convert the steps before the trees, and join both graphs."""
    steps = [step for step in pipeline.steps[:-1] if step[1] != "passthrough"]
    model = _convert(Pipeline(steps or [("same", FunctionTransformer())]), head, columns, {})
    (features,) = (output.name for output in model.graph.output)
    fragment = Fragment(head.score)
    wide = fragment.node("Cast", features, to=TensorProto.DOUBLE)
    outputs = add_trees(fragment, trees, wide)
    _add_scores(model, fragment, outputs, 1 if trees.outputs > 1 else 0, head)
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*opset) for opset in OPSETS.items())
    model.ir_version = IR_VERSION
    return _with_column_names(model, columns)


def _converted(pipeline: Pipeline, head: Head, columns: tuple[Column, ...]) -> ModelProto:
    """Convert a whole pipeline by skl2onnx."""
    estimator = pipeline.steps[-1][1]
    options: dict[str, Any] = {}
    if hasattr(estimator, "predict_proba"):
        options["zipmap"] = False
    if is_classifier(estimator) and head.method == "decision_function":
        options["raw_scores"] = True
    model = _convert(pipeline, head, columns, {id(estimator): options} if options else {})
    raw = model.graph.output[0 if head.method == "predict" else 1].name
    model = select_model_inputs_outputs(model, outputs=[raw])
    # Of two classes some converters write two raw scores; the last one is the decision function.
    column = {"predict": 0, "predict_proba": 1, "decision_function": -1}[head.method]
    _add_scores(model, Fragment(head.score), raw, column, head)
    return _with_column_names(model, columns)


def _convert(
    steps: Pipeline, head: Head, columns: tuple[Column, ...], options: dict[int, dict[str, Any]]
) -> ModelProto:
    """Convert steps by skl2onnx, with inputs in the order of the columns."""
    model: ModelProto = convert_sklearn(
        steps,
        initial_types=[(c.name, _TENSORS[DTYPES[c.datatype].kind]([None, 1])) for c in columns],
        options=options or None,
        target_opset=_SKL2ONNX_OPSETS,
    )
    # skl2onnx turns column names into identifiers. The inputs keep their order, so they get their
    # own names back at the end, and until then names that nothing else in the graph has.
    places = [f"column {number}" for number in range(len(columns))]
    _rename(model, dict(zip((each.name for each in model.graph.input), places, strict=True)))
    _rename(model, {head.score: f"{head.score} of skl2onnx"})
    _stay_in_double(model)
    return model


def _with_column_names(model: ModelProto, columns: tuple[Column, ...]) -> ModelProto:
    _rename(model, {f"column {number}": column.name for number, column in enumerate(columns)})
    return model


def _rename(model: ModelProto, names: dict[str, str]) -> None:
    """Rename tensors; a tensor that already has one of the new names gets another name."""
    graph = model.graph
    known = {name for node in graph.node for name in (*node.input, *node.output)}
    taken = {*names.values()}
    names = {**{name: f"column {name}" for name in known & taken}, **names}
    for node in graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [names.get(name, name) for name in tensors]
    for described_tensor in (
        *graph.input,
        *graph.output,
        *graph.value_info,
        *graph.initializer,
    ):
        described_tensor.name = names.get(described_tensor.name, described_tensor.name)


def _stay_in_double(model: ModelProto) -> None:
    """Keep double precision: FeatureVectorizer, which joins columns, always returns float32."""
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "FeatureVectorizer":
            nodes.append(node)
            continue
        for place, name in enumerate(node.input):
            wide = f"{name}_in_double"
            if wide not in [known.name for known in nodes]:
                to = TensorProto.DOUBLE
                nodes.append(helper.make_node("Cast", [name], [wide], name=wide, to=to))
            node.input[place] = wide
        joined = [*node.input], [*node.output]
        nodes.append(helper.make_node("Concat", *joined, name=node.name, axis=1))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _add_scores(
    model: ModelProto, fragment: Fragment, outputs: str, column: int, head: Head
) -> None:
    """Add nodes, and make one column of ``outputs`` the score, or all of them the scores."""
    scores = len(task_of(head).scores)
    if scores > 1:
        flat = fragment.node("Reshape", outputs, fragment.constant(np.array([-1, scores])))
    elif column:
        flat = fragment.node("Gather", outputs, fragment.constant(np.array(column)), axis=1)
    else:
        flat = fragment.node("Reshape", outputs, fragment.constant(np.array([-1])))
    fragment.node("Cast", flat, output=head.score, to=TensorProto.DOUBLE)
    model.graph.node.extend(fragment.nodes)
    model.graph.initializer.extend(fragment.constants)
    used = {name for each in model.graph.node for name in each.input}
    kept = [constant for constant in model.graph.initializer if constant.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    del model.graph.output[:]
    shape = [None] if scores == 1 else [None, scores]
    score = helper.make_tensor_value_info(head.score, TensorProto.DOUBLE, shape)
    model.graph.output.append(score)
