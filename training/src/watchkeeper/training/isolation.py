"""The ONNX form of an isolation forest as one ensemble of regression trees.

skl2onnx writes each tree as a graph of fifteen nodes: a hundred trees take seconds to convert and
over a millisecond per row. The depth of a row is a sum of one constant per leaf, which is what an
ensemble of regression trees computes (Liu, Ting and Zhou, "Isolation Forest", ICDM 2008, equations
1 and 2).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from sklearn.ensemble import IsolationForest

_LEAF = -1
_MISSING_GOES_LEFT = 0  # a request has no missing values


def convert(_: Any, operator: Any, container: Any) -> None:
    """Convert a fitted isolation forest; skl2onnx calls this converter.

    The outputs are the label (1, or -1 where the decision function is below 0), the decision
    function and, where requested, the score of the samples.
    """
    forest: IsolationForest = operator.raw_operator
    label, decision, *samples = (output.full_name for output in operator.outputs)
    names = {
        name: f"{decision}_{name}"
        for name in ("in_double", "depth", "wide", "exponent", "two", "power", "score", "below")
    }
    constant = {
        "two": np.array([2.0]),
        "offset": np.array([forest.offset_]),
        "odd": np.array([-1], dtype=np.int64),
        "usual": np.array([1], dtype=np.int64),
        "zero": np.array([0.0]),
    }
    for name, value in constant.items():
        names[name] = f"{decision}_{name}"
        kind = TensorProto.INT64 if value.dtype == np.int64 else TensorProto.DOUBLE
        container.add_initializer(names[name], kind, list(value.shape), value.tolist())

    def node(operator_type: str, inputs: list[str], output: str, **attributes: Any) -> None:
        name = f"{output}_{operator_type}"
        container.add_node(operator_type, inputs, output, name=name, **attributes)

    # The features come as float32, as scikit-learn compares them; the trees compare doubles.
    node("Cast", [operator.inputs[0].full_name], names["in_double"], to=TensorProto.DOUBLE)
    node(
        "TreeEnsembleRegressor",
        [names["in_double"]],
        names["depth"],
        op_domain="ai.onnx.ml",
        op_version=3,
        **_trees(forest),
    )
    node("Cast", [names["depth"]], names["wide"], to=TensorProto.DOUBLE)
    node("Neg", [names["wide"]], names["exponent"])
    node("Pow", [names["two"], names["exponent"]], names["power"])
    score = samples[0] if samples else names["score"]
    node("Neg", [names["power"]], score)
    node("Sub", [score, names["offset"]], decision)
    node("Less", [decision, names["zero"]], names["below"])
    node("Where", [names["below"], names["odd"], names["usual"]], label)


def _trees(forest: IsolationForest) -> dict[str, Any]:
    """Return the ensemble's attributes; its sum is the mean depth over the expected depth."""
    found: dict[str, list[NDArray[Any]]] = {}
    expected = len(forest.estimators_) * float(_expected_depth(np.array([forest.max_samples_]))[0])
    members = zip(forest.estimators_, forest.estimators_features_, strict=True)
    for number, (member, columns) in enumerate(members):
        tree = member.tree_
        nodes = np.arange(tree.node_count)
        leaf = tree.children_left == _LEAF
        split = ~leaf
        depth = _depths(tree)[leaf] + _expected_depth(tree.n_node_samples[leaf])
        parts = {
            "nodes_treeids": np.full(tree.node_count, number),
            "nodes_nodeids": nodes,
            "nodes_featureids": np.where(leaf, 0, columns[np.where(leaf, 0, tree.feature)]),
            "nodes_modes": np.where(leaf, "LEAF", "BRANCH_LEQ"),
            "nodes_values": np.where(split, tree.threshold, 0.0),
            "nodes_truenodeids": np.where(split, tree.children_left, 0),
            "nodes_falsenodeids": np.where(split, tree.children_right, 0),
            "nodes_missing_value_tracks_true": np.full(tree.node_count, _MISSING_GOES_LEFT),
            "target_treeids": np.full(int(leaf.sum()), number),
            "target_nodeids": nodes[leaf],
            "target_ids": np.zeros(int(leaf.sum()), dtype=np.int64),
            "target_weights": depth / expected,
        }
        for name, values in parts.items():
            found.setdefault(name, []).append(values)
    joined = {name: np.concatenate(values) for name, values in found.items()}
    exact = {
        f"{name}_as_tensor": numpy_helper.from_array(joined.pop(name).astype(np.float64), name)
        for name in ("nodes_values", "target_weights")
    }
    return {
        **{name: values.tolist() for name, values in joined.items()},
        **exact,
        "n_targets": 1,
        "aggregate_function": "SUM",
        "post_transform": "NONE",
    }


def _depths(tree: Any) -> NDArray[np.float64]:
    """Count the splits above each node (nodes,); children come after their parents."""
    depths = np.zeros(tree.node_count)
    for node in range(tree.node_count):
        for child in (tree.children_left[node], tree.children_right[node]):
            if child != _LEAF:
                depths[child] = depths[node] + 1.0
    return depths


def _expected_depth(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return the average depth of a row in trees of ``rows`` rows, in the same shape."""
    many = np.maximum(rows, 3).astype(np.float64)
    deep = 2.0 * (np.log(many - 1.0) + np.euler_gamma) - 2.0 * (many - 1.0) / many
    return np.where(rows <= 1, 0.0, np.where(rows == 2, 1.0, deep))
