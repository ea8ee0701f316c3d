"""A compiled forest: the trees of an ONNX graph for many rows at once, without branches.

ONNX Runtime takes one row after the other down a tree. At about every second node the processor
predicts the wrong child. The compiled forest takes a block of rows down a tree level by level, and
it computes the next node: siblings are neighbours, so the next node is the left child plus the
result of the comparison. Leaves point to themselves. No row waits for another one, so the processor
loads many nodes at the same time. This is VPred of N. Asadi, J. Lin and A. P. de Vries, "Runtime
Optimizations for Tree-Based Machine Learning Models", IEEE TKDE 26(9), 2014.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

_BLOCK = 64  # rows that go down a tree together


class UnsupportedGraphError(ValueError):
    """The graph or its trees have a form that the compiled forest does not support."""


class ForestGraph(NamedTuple):
    """A graph in three parts.

    Attributes:
        before: ONNX graph from the inputs to the features, of shape [rows, features].
        forest: From the features to the sums of the leaves.
        sum_name: Name of the sums, FP32 of shape [rows, 1].
        after: ONNX graph from the sums to the outputs.
    """

    before: bytes
    forest: "Forest"
    sum_name: str
    after: bytes


def split_at_forest(model: ModelProto) -> ForestGraph:
    """Split a graph before and after its TreeEnsembleRegressor.

    Raises:
        UnsupportedGraphError: The trees are not in exactly one node of this type, or a tree has a
            form that is not supported.
    """
    graph = model.graph
    ensembles = [node for node in graph.node if node.op_type.startswith("TreeEnsemble")]
    if [node.op_type for node in ensembles] != ["TreeEnsembleRegressor"]:
        raise UnsupportedGraphError("the trees are not in one TreeEnsembleRegressor")
    (ensemble,) = ensembles
    (features,), (sum_name,) = ensemble.input, ensemble.output
    before: list[NodeProto] = []
    after: list[NodeProto] = []
    computed_after = {sum_name}
    for node in graph.node:  # in topological order
        if not computed_after.isdisjoint(node.input):
            computed_after.update(node.output)
            after.append(node)
        elif node is not ensemble:
            before.append(node)

    def part(nodes: list[NodeProto], inputs: Any, outputs: Any) -> bytes:
        subgraph = helper.make_graph(nodes, graph.name, inputs, outputs, graph.initializer)
        part_model = helper.make_model(
            subgraph, opset_imports=model.opset_import, ir_version=model.ir_version
        )
        return bytes(part_model.SerializeToString())

    sums = helper.make_tensor_value_info(sum_name, TensorProto.FLOAT, [None, 1])
    return ForestGraph(
        part(before, graph.input, [ValueInfoProto(name=features)]),
        Forest(ensemble),
        sum_name,
        part(after, [sums], graph.output),
    )


class Forest:
    """The trees of a TreeEnsembleRegressor with one target.

    Features, thresholds and weights are FP64, which represents FP32 exactly, so every row reaches
    the same leaves as in ONNX Runtime.

    Raises:
        UnsupportedGraphError: The trees have a form that is not supported.
    """

    def __init__(self, node: NodeProto) -> None:
        given = {each.name: each for each in node.attribute}
        modes = np.array(given["nodes_modes"].strings)
        leaf = modes == b"LEAF"
        if not (leaf | (modes == b"BRANCH_LEQ")).all():
            raise UnsupportedGraphError(f"its nodes have the modes {set(modes.tolist())}")
        for name, supported in (("aggregate_function", b"SUM"), ("post_transform", b"NONE")):
            if name in given and given[name].s != supported:
                raise UnsupportedGraphError(f"{name} is {given[name].s!r}, not {supported!r}")
        if given["n_targets"].i != 1 or _integers(given, "target_ids").any():
            raise UnsupportedGraphError("it has more than one target")
        if _integers(given, "nodes_missing_value_tracks_true").any():
            raise UnsupportedGraphError("it has a separate branch for missing values")
        threshold = _doubles(given, "nodes_values")
        if not np.isfinite(threshold[~leaf]).all():
            raise UnsupportedGraphError("it has infinite thresholds")
        trees = _integers(given, "nodes_treeids")
        find = _node_lookup(trees, _integers(given, "nodes_nodeids"))
        children = np.zeros((len(leaf), 2), dtype=np.intp)
        for side, name in enumerate(("nodes_truenodeids", "nodes_falsenodeids")):
            children[~leaf, side] = find(trees[~leaf], _integers(given, name)[~leaf])
        weight = np.zeros(len(leaf))
        with_weight = find(_integers(given, "target_treeids"), _integers(given, "target_nodeids"))
        np.add.at(weight, with_weight, _doubles(given, "target_weights"))
        order, roots = _breadth_first(trees, leaf, children)
        position = np.empty(len(order), dtype=np.uint32)
        position[order] = np.arange(len(order))
        feature = np.where(leaf, 0, _integers(given, "nodes_featureids"))
        self._roots = position[roots]
        self._left = np.where(leaf, position, position[children[:, 0]])[order]
        self._feature = feature[order].astype(np.uint32)
        self._threshold = np.where(leaf, np.inf, threshold)[order]
        self._weight = weight[order]
        self._features = int(self._feature.max()) + 1
        self._base = float(_doubles(given, "base_values").sum())
        self._add_trees = _compile_add_trees()

    def sum_leaves(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """Add the weights of the leaves that each row reaches.

        Args:
            features: Numbers of shape (rows, features).

        Returns:
            The sums, of shape (rows, 1).

        Raises:
            ValueError: There are fewer features than the trees need.
        """
        values = np.array(features, dtype=np.float64, order="C")
        if values.ndim != 2 or values.shape[1] < self._features:  # compiled code does not check
            raise ValueError(f"features of shape {values.shape}: {self._features} are needed")
        values[np.isnan(values)] = np.inf  # like NaN, not less than or equal to any threshold
        sums = np.full(len(values), self._base)
        self._add_trees(
            values, self._roots, self._feature, self._threshold, self._left, self._weight, sums
        )
        return sums.astype(np.float32).reshape(-1, 1)


def _integers(given: dict[str, AttributeProto], name: str) -> NDArray[np.int64]:
    values = given[name].ints if name in given else []
    return np.fromiter(values, np.int64, len(values))  # without a list of a million integers


def _doubles(given: dict[str, AttributeProto], name: str) -> NDArray[np.float64]:
    if f"{name}_as_tensor" in given:
        return numpy_helper.to_array(given[f"{name}_as_tensor"].t).astype(np.float64)
    values = given[name].floats if name in given else []
    return np.fromiter(values, np.float64, len(values))


def _node_lookup(
    trees: NDArray[np.int64], nodes: NDArray[np.int64]
) -> Callable[..., NDArray[np.intp]]:
    """Return a function from numbers of trees and nodes to positions in these lists."""
    span = int(nodes.max()) + 1
    keys = trees * span + nodes
    order = np.argsort(keys)

    def find(trees: NDArray[np.int64], nodes: NDArray[np.int64]) -> NDArray[np.intp]:
        wanted = trees * span + nodes
        ranks = np.searchsorted(keys, wanted, sorter=order)
        found = order[np.minimum(ranks, len(keys) - 1)]
        if not (keys[found] == wanted).all():
            raise UnsupportedGraphError("it refers to nodes that do not exist")
        return found

    return find


def _breadth_first(
    trees: NDArray[np.int64], leaf: NDArray[np.bool_], children: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Order nodes by tree, then by level, with siblings as neighbours; also return the roots."""
    parents = np.bincount(children[~leaf].ravel(), minlength=len(leaf))
    roots = np.flatnonzero(parents == 0)
    if parents.max() > 1 or len(roots) != len(np.unique(trees)):
        raise UnsupportedGraphError("it has nodes with two parents, or trees with two roots")
    levels = [roots]
    while len(levels[-1]):
        levels.append(children[levels[-1][~leaf[levels[-1]]]].ravel())
    nodes = np.concatenate(levels)
    if len(nodes) < len(leaf):
        raise UnsupportedGraphError("it has nodes that no root reaches")
    depth = np.repeat(np.arange(len(levels)), [len(each) for each in levels])
    return nodes[np.lexsort((depth, trees[nodes]))], roots


@cache
def _compile_add_trees() -> Callable[..., None]:
    """Compile the loop, which takes a second."""
    import numba  # noqa: PLC0415 - costs half a second and 60 MiB; only forests need it

    doubles, nodes = numba.float64[::1], numba.uint32[::1]
    types = numba.void(numba.float64[:, ::1], nodes, nodes, doubles, nodes, doubles, doubles)
    compiled: Callable[..., None] = numba.njit(types)(_add_trees)
    return compiled


def _add_trees(  # noqa: PLR0917 - compiled code gets its arrays by position
    features: NDArray[np.float64],
    roots: NDArray[np.uint32],
    feature: NDArray[np.uint32],
    threshold: NDArray[np.float64],
    left: NDArray[np.uint32],
    weight: NDArray[np.float64],
    sums: NDArray[np.float64],
) -> None:
    """Add the leaf of every tree to the sums.

    All integers are unsigned: for signed ones numba also compiles a check for negative indexes.

    Args:
        features: The rows, of shape (rows, features).
        roots: The root of each tree, as a node.
        feature: The feature that each node compares.
        threshold: What each node compares with; infinite for a leaf.
        left: The left child of each node; a leaf has itself.
        weight: The weight of each node; zero if it is not a leaf.
        sums: The sums so far, of shape (rows,).
    """
    rows, block = np.uint64(len(features)), np.uint64(_BLOCK)
    nodes = np.empty(_BLOCK, np.uint32)
    for root in roots:
        for first in range(np.uint64(0), rows, block):
            count = min(block, rows - first)
            nodes[:] = root
            reached, moving = count * np.uint64(root), True
            while moving:
                before, reached = reached, np.uint64(0)
                for row in range(count):
                    node = nodes[row]
                    right = features[first + row, feature[node]] > threshold[node]
                    node = left[node] + np.uint32(right)
                    nodes[row] = node
                    reached += np.uint64(node)
                moving = reached != before  # a child has a larger number than its parent
            for row in range(count):
                sums[first + row] += weight[nodes[row]]
