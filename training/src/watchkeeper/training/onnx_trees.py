"""Trees as nodes of an ONNX graph: ``TreeEnsemble`` of ai.onnx.ml 5, which computes in double.

The older operators return float32, and the converters of the libraries give other answers near
thresholds and for missing values.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from watchkeeper.pipeline.trees import Tree, Trees

OPSETS: Final = {"": 18, "ai.onnx.ml": 5}
IR_VERSION: Final = 10

_LEQ, _MEMBER = 0, 6  # modes of the operator
_SUM, _NO_TRANSFORM = 1, 0


class Fragment:
    """Nodes and constants that are added to a graph, with names of their own."""

    def __init__(self, prefix: str) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._prefix = prefix

    def constant(self, value: Any) -> str:
        """Add a constant; return its name."""
        name = f"{self._prefix}: constant {len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node with one output; return the name of the output."""
        name = output or f"{self._prefix}: {kind} {len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name


def add_trees(fragment: Fragment, trees: Trees, features: str) -> str:
    """Add an ensemble to a graph.

    Args:
        fragment: gets the nodes.
        trees: the ensemble.
        features: the name of a tensor of doubles, of shape [rows, features].

    Returns:
        The name of the outputs, doubles of shape [rows, outputs].
    """
    values = _prepared(fragment, trees, features)
    sums = fragment.node("TreeEnsemble", values, domain="ai.onnx.ml", **_attributes(trees))
    if trees.base.any():
        sums = fragment.node("Add", sums, fragment.constant(trees.base.reshape(1, -1)))
    return _linked(fragment, trees, sums)


def trees_model(trees: Trees) -> ModelProto:
    """Return a model of the ensemble alone, from ``features`` to ``outputs``."""
    fragment = Fragment("trees")
    fragment.node("Identity", add_trees(fragment, trees, "features"), output="outputs")
    given = helper.make_tensor_value_info("features", TensorProto.DOUBLE, [None, None])
    found = helper.make_tensor_value_info("outputs", TensorProto.DOUBLE, [None, trees.outputs])
    graph = helper.make_graph(fragment.nodes, "trees", [given], [found], fragment.constants)
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def _prepared(fragment: Fragment, trees: Trees, values: str) -> str:
    """Add what happens to features before they are compared."""
    node, constant = fragment.node, fragment.constant
    if trees.float32:
        values = node("Cast", node("Cast", values, to=TensorProto.FLOAT), to=TensorProto.DOUBLE)
    if trees.missing.value is not None:
        value = np.float32(trees.missing.value) if trees.float32 else trees.missing.value
        equal = node("Equal", values, constant(np.float64(value)))
        values = node("Where", equal, constant(np.float64(np.nan)), values)
    if trees.missing.zeros:
        limit = np.full(trees.features, -1.0)  # no number is that small in size
        limit[list(trees.missing.zeros)] = trees.missing.nearly_zero
        small = node("LessOrEqual", node("Abs", values), constant(limit))
        values = node("Where", small, constant(np.float64(np.nan)), values)
    if trees.whole.features:
        chosen = np.zeros(trees.features, dtype=bool)
        chosen[list(trees.whole.features)] = True
        rounded = node("Floor", values)
        if trees.whole.rounding == "towards zero":
            size = node("Floor", node("Abs", values))
            rounded = node("Mul", node("Sign", values), size)
        values = node("Where", constant(chosen), rounded, values)
    return values


def _linked(fragment: Fragment, trees: Trees, sums: str) -> str:
    """Add what turns the sums into the outputs."""
    node, constant = fragment.node, fragment.constant
    if trees.link == "sigmoid":
        return node("Sigmoid", sums)
    if trees.link == "softmax":
        return node("Softmax", sums, axis=1)
    if trees.link == "exp":
        return node("Exp", sums)
    if trees.link == "identity":
        return sums
    power = node("Pow", constant(np.float64(2.0)), node("Neg", sums))
    score = node("Sub", node("Neg", power), constant(np.float64(trees.offset)))
    if trees.link == "isolation":
        return score
    below = node("Less", score, constant(np.float64(0.0)))
    return node("Where", below, constant(np.float64(-1.0)), constant(np.float64(1.0)))


def _attributes(trees: Trees) -> dict[str, Any]:
    """Return the attributes of the operator: all inner nodes, and apart from them all leaves."""
    split = [_split(tree) for tree in trees.trees]
    leaf = [tree.leaf for tree in split]
    inner_start = np.cumsum([0, *(int((~each).sum()) for each in leaf)])
    leaf_start = np.cumsum([0, *(int(each.sum()) for each in leaf)])
    parts: dict[str, list[NDArray[Any]]] = {}
    members: list[NDArray[np.float64]] = []

    for tree, leaves, first, first_leaf in zip(
        split, leaf, inner_start[:-1], leaf_start[:-1], strict=True
    ):
        inner = np.flatnonzero(~leaves)
        place = np.where(leaves, first_leaf + np.cumsum(leaves), first + np.cumsum(~leaves)) - 1
        belongs = np.isin(inner, list(tree.members))
        members += [np.append(tree.members[int(node)], np.nan) for node in inner[belongs]]
        found = {
            "nodes_featureids": tree.feature[inner],
            "nodes_splits": tree.threshold[inner],
            "nodes_modes": np.where(belongs, _MEMBER, _LEQ).astype(np.uint8),
            "nodes_truenodeids": place[tree.left[inner]],
            "nodes_trueleafs": leaves[tree.left[inner]],
            "nodes_falsenodeids": place[tree.right[inner]],
            "nodes_falseleafs": leaves[tree.right[inner]],
            "nodes_missing_value_tracks_true": tree.missing_left[inner],
            "leaf_weights": tree.weight[leaves],
            "leaf_targetids": np.full(int(leaves.sum()), tree.output),
        }
        for name, values in found.items():
            parts.setdefault(name, []).append(values)
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    if members:
        joined["membership_values"] = np.concatenate(members)
    tensors = ("nodes_splits", "nodes_modes", "leaf_weights", "membership_values")
    return {
        **{
            name: numpy_helper.from_array(values, name)
            if name in tensors
            else values.astype(np.int64).tolist()
            for name, values in joined.items()
        },
        "tree_roots": inner_start[:-1].tolist(),
        "n_targets": trees.outputs,
        "aggregate_function": _SUM,
        "post_transform": _NO_TRANSFORM,
    }


def _split(tree: Tree) -> Tree:
    """Split a tree that is one leaf, because the operator starts at an inner node."""
    if len(tree.left) > 1:
        return tree
    return Tree(
        np.zeros(3, dtype=np.int64),
        np.zeros(3),
        np.array([1, -1, -1]),
        np.array([2, -1, -1]),
        np.zeros(3, dtype=bool),
        np.array([0.0, *tree.weight, *tree.weight]),
        tree.output,
    )
