"""The ONNX form of a pipeline.

A form has one input tensor of shape [rows, 1] per request column, with the column's name, and one
output with the name of the head: the score, of shape [rows], or all scores, [rows, scores].
"""

from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, Int64TensorType, StringTensorType
from skl2onnx.helpers.onnx_helper import select_model_inputs_outputs
from skl2onnx.shape_calculators.isolation_forest import calculate_isolation_forest_output_shapes
from skl2onnx.sklapi import CastTransformer
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import Pipeline

from watchkeeper.core.head import Head
from watchkeeper.core.signature import Column
from watchkeeper.core.statistics import largest_difference
from watchkeeper.core.tasks import task_of
from watchkeeper.training import isolation
from watchkeeper.training.rows import ScoredRows

_TENSORS = {"FP64": DoubleTensorType, "INT64": Int64TensorType, "BYTES": StringTensorType}
_OPSETS = {"": 18, "ai.onnx.ml": 3}


def to_onnx(pipeline: Pipeline, head: Head, columns: tuple[Column, ...]) -> bytes:
    """Convert a fitted pipeline to an ONNX file.

    Raises the errors of skl2onnx for estimators that it cannot convert.
    """
    estimator = pipeline.named_steps["estimator"]
    steps: list[tuple[str, Any]] = [("features", pipeline.named_steps["features"])]
    if hasattr(estimator, "estimators_"):
        # Trees of scikit-learn compare float32 values with double thresholds. After the same
        # cast, skl2onnx finds float32 thresholds that give exactly the same decisions.
        steps.append(("cast", CastTransformer(dtype=np.float32)))
    options = {id(estimator): {"zipmap": False}} if head.method == "predict_proba" else None
    if head.method == "score_samples":
        options = {id(estimator): {"score_samples": True}}
    model = convert_sklearn(
        Pipeline([*steps, ("estimator", estimator)]),
        initial_types=[(c.name, _TENSORS[c.datatype]([None, 1])) for c in columns],
        options=options,
        target_opset=_OPSETS,
        custom_conversion_functions={IsolationForest: isolation.convert},
        custom_shape_calculators={IsolationForest: calculate_isolation_forest_output_shapes},
    )
    # skl2onnx turns column names into identifiers. The inputs keep their order, so they get their
    # own names back at the end, and until then names that nothing else in the graph has.
    places = [f"column {number}" for number in range(len(columns))]
    _rename(model, dict(zip((each.name for each in model.graph.input), places, strict=True)))
    _stay_in_double(model)
    model = _scores_only(model, head)
    _rename(model, dict(zip(places, (column.name for column in columns), strict=True)))
    return bytes(model.SerializeToString())


def _rename(model: ModelProto, names: dict[str, str]) -> None:
    """Rename tensors; a tensor that already has one of the new names gets another name."""
    graph = model.graph
    known = {name for node in graph.node for name in (*node.input, *node.output)}
    taken = {*names.values()}
    names = {**{name: f"column {name}" for name in known & taken}, **names}
    for node in graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [names.get(name, name) for name in tensors]
    for described_tensor in (*graph.input, *graph.value_info, *graph.initializer):
        described_tensor.name = names.get(described_tensor.name, described_tensor.name)


def difference(form: bytes, head: Head, expected: ScoredRows) -> float:
    """Return the largest difference between a form's scores and the expected ones."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(form, options, providers=["CPUExecutionProvider"])
    columns = expected.rows.as_columns()
    inputs = {name: values.reshape(-1, 1) for name, values in columns.items()}
    (found,) = session.run([head.score], inputs)
    scores = task_of(head).columns(np.asarray(found))
    return max(largest_difference(scores[name], expected.scores[name]) for name in scores)


def _stay_in_double(model: ModelProto) -> None:
    """Keep double precision in two places where skl2onnx or an operator uses float32.

    FeatureVectorizer, which joins request columns, always returns float32. And the votes of trees
    are summed in the type of their input, while scikit-learn sums doubles.
    """
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type in ("FeatureVectorizer", "TreeEnsembleClassifier"):
            for place, name in enumerate(node.input):
                wide = f"{name}_in_double"
                if wide not in [known.name for known in nodes]:
                    to = TensorProto.DOUBLE
                    nodes.append(helper.make_node("Cast", [name], [wide], name=wide, to=to))
                node.input[place] = wide
        if node.op_type == "FeatureVectorizer":
            joined = [*node.input], [*node.output]
            nodes.append(helper.make_node("Concat", *joined, name=node.name, axis=1))
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _scores_only(model: ModelProto, head: Head) -> ModelProto:
    """Reduce the outputs to the scores, in double precision."""
    scores = len(task_of(head).scores)
    names = [output.name for output in model.graph.output]
    wanted = {"predict_proba": 1, "decision_function": 1, "score_samples": 2, "predict": 0}
    raw = names[wanted[head.method]]
    model = select_model_inputs_outputs(model, outputs=[raw])
    if scores > 1:
        argument = numpy_helper.from_array(np.array([-1, scores]), "all")
        shaping = helper.make_node("Reshape", [raw, "all"], ["shaped"])
    elif head.method == "predict_proba" and not _sum_positive_class(model):
        argument = numpy_helper.from_array(np.array(1), "positive")
        shaping = helper.make_node("Gather", [raw, "positive"], ["shaped"], axis=1)
    else:
        argument = numpy_helper.from_array(np.array([-1]), "flat")
        shaping = helper.make_node("Reshape", [raw, "flat"], ["shaped"])
    model.graph.initializer.append(argument)
    cast = helper.make_node("Cast", ["shaped"], [head.score], to=TensorProto.DOUBLE)
    model.graph.node.extend([shaping, cast])
    used = {name for each in model.graph.node for name in each.input}
    kept = [constant for constant in model.graph.initializer if constant.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    del model.graph.output[:]
    shape = [None] if scores == 1 else [None, scores]
    described_output = helper.make_tensor_value_info(head.score, TensorProto.DOUBLE, shape)
    model.graph.output.append(described_output)
    return model


def _sum_positive_class(model: ModelProto) -> bool:
    """Turn trees that vote on two classes into a regressor that sums the positive class only.

    It is a tenth faster, because the other class and the label are not computed. Returns False if
    no node has that form.
    """
    for node in model.graph.node:
        given = {each.name: each for each in node.attribute}
        if (
            node.op_type != "TreeEnsembleClassifier"
            or not {"classlabels_int64s", "class_weights"} <= given.keys()
            or len(given["classlabels_int64s"].ints) != 2
            or len({*given["class_ids"].ints}) != 1
            or min(given["class_weights"].floats) < 0  # the sum would not be a probability
            or given["post_transform"].s != b"NONE"
            or "base_values" in given
        ):
            continue
        kept = [each for name, each in given.items() if name != "classlabels_int64s"]
        for each in kept:
            each.name = each.name.replace("class_", "target_")
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("n_targets", 1)])
        del node.output[0]
        node.op_type = "TreeEnsembleRegressor"
        return True
    return False
