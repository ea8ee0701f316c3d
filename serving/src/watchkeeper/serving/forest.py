"""Forests: many rows at once through the trees of an ONNX graph, without branches.

ONNX Runtime leads one row after the other down a tree, and at about every second node the
processor guesses wrong which child is next. Here a block of rows goes down level by level, and
the next node is computed: children lie side by side, so it is the left one plus the outcome of
the comparison; leaves lead back to themselves. As no row waits for another one, the processor
fetches the nodes of many at once. This is VPred of N. Asadi, J. Lin and A. P. de Vries, "Runtime
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


class OtherFormError(ValueError):
    """The graph or its trees are of another form than what is known here."""


class Cut(NamedTuple):
    """A graph in three parts.

    ``front`` makes the trees' input, of shape [rows, features], of the graph's inputs; ``back``
    makes the graph's outputs of ``total``, the trees' output, FP32 of shape [rows, 1].
    """

    front: bytes
    forest: "Forest"
    total: str
    back: bytes


def cut(model: ModelProto) -> Cut:
    """Cut a graph before and behind its one TreeEnsembleRegressor.

    Raises:
        OtherFormError: its trees are in no node, in more than one, or in another one.
    """
    graph = model.graph
    ensembles = [node for node in graph.node if node.op_type.startswith("TreeEnsemble")]
    if [node.op_type for node in ensembles] != ["TreeEnsembleRegressor"]:
        raise OtherFormError("the trees are not in one TreeEnsembleRegressor")
    (ensemble,) = ensembles
    (features,), (total,) = ensemble.input, ensemble.output
    front: list[NodeProto] = []
    back: list[NodeProto] = []
    made = {total}
    for node in graph.node:  # none stands before one that it needs
        if not made.isdisjoint(node.input):
            made.update(node.output)
            back.append(node)
        elif node is not ensemble:
            front.append(node)

    def part(nodes: list[NodeProto], inputs: Any, outputs: Any) -> bytes:
        own = helper.make_graph(nodes, graph.name, inputs, outputs, graph.initializer)
        whole = helper.make_model(
            own, opset_imports=model.opset_import, ir_version=model.ir_version
        )
        return bytes(whole.SerializeToString())

    summed = helper.make_tensor_value_info(total, TensorProto.FLOAT, [None, 1])
    return Cut(
        part(front, graph.input, [ValueInfoProto(name=features)]),
        Forest(ensemble),
        total,
        part(back, [summed], graph.output),
    )


class Forest:
    """The trees of a TreeEnsembleRegressor with one target.

    Thresholds, features and weights are doubles, which hold whatever the node itself compares:
    every row ends in the same leaves.
    """

    def __init__(self, node: NodeProto) -> None:
        given = {each.name: each for each in node.attribute}
        modes = np.array(given["nodes_modes"].strings)
        leaf = modes == b"LEAF"
        if not (leaf | (modes == b"BRANCH_LEQ")).all():
            raise OtherFormError(f"its nodes are {set(modes.tolist())}")
        for name, only in (("aggregate_function", b"SUM"), ("post_transform", b"NONE")):
            if name in given and given[name].s != only:
                raise OtherFormError(f"{name} is {given[name].s!r}, not {only!r}")
        if given["n_targets"].i != 1 or _integers(given, "target_ids").any():
            raise OtherFormError("it has more than one target")
        if _integers(given, "nodes_missing_value_tracks_true").any():
            raise OtherFormError("it sends missing values where others do not go")
        threshold = _doubles(given, "nodes_values")
        if not np.isfinite(threshold[~leaf]).all():
            raise OtherFormError("it has infinite thresholds")
        trees = _integers(given, "nodes_treeids")
        find = _finder(trees, _integers(given, "nodes_nodeids"))
        children = np.zeros((len(leaf), 2), dtype=np.intp)
        for side, name in enumerate(("nodes_truenodeids", "nodes_falsenodeids")):
            children[~leaf, side] = find(trees[~leaf], _integers(given, name)[~leaf])
        weight = np.zeros(len(leaf))
        weighed = find(_integers(given, "target_treeids"), _integers(given, "target_nodeids"))
        np.add.at(weight, weighed, _doubles(given, "target_weights"))
        order, roots = _layers(trees, leaf, children)
        place = np.empty(len(order), dtype=np.uint32)
        place[order] = np.arange(len(order))
        feature = np.where(leaf, 0, _integers(given, "nodes_featureids"))
        self._roots = place[roots]
        self._left = np.where(leaf, place, place[children[:, 0]])[order]
        self._feature = feature[order].astype(np.uint32)
        self._threshold = np.where(leaf, np.inf, threshold)[order]
        self._weight = weight[order]
        self._features = int(self._feature.max()) + 1
        self._base = float(_doubles(given, "base_values").sum())
        self._add_up = _compiled()

    def add_up(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """Add up the weights of the leaves that rows (rows, features) end in, to (rows, 1)."""
        values = np.array(features, dtype=np.float64, order="C")
        if values.ndim != 2 or values.shape[1] < self._features:  # what is compiled never looks
            raise ValueError(f"features of shape {values.shape}: {self._features} are needed")
        values[np.isnan(values)] = np.inf  # no less or equal than any threshold, either
        totals = np.full(len(values), self._base)
        self._add_up(
            values, self._roots, self._feature, self._threshold, self._left, self._weight, totals
        )
        return totals.astype(np.float32).reshape(-1, 1)


def _integers(given: dict[str, AttributeProto], name: str) -> NDArray[np.int64]:
    values = given[name].ints if name in given else []
    return np.fromiter(values, np.int64, len(values))  # no list of a million integers between


def _doubles(given: dict[str, AttributeProto], name: str) -> NDArray[np.float64]:
    if f"{name}_as_tensor" in given:
        return numpy_helper.to_array(given[f"{name}_as_tensor"].t).astype(np.float64)
    values = given[name].floats if name in given else []
    return np.fromiter(values, np.float64, len(values))


def _finder(trees: NDArray[np.int64], nodes: NDArray[np.int64]) -> Callable[..., NDArray[np.intp]]:
    """Return what finds nodes, by trees and numbers, among those that are listed."""
    span = int(nodes.max()) + 1
    listed = trees * span + nodes
    ranked = np.argsort(listed)

    def find(trees: NDArray[np.int64], nodes: NDArray[np.int64]) -> NDArray[np.intp]:
        wanted = trees * span + nodes
        ranks = np.searchsorted(listed, wanted, sorter=ranked)
        found = ranked[np.minimum(ranks, len(listed) - 1)]
        if not (listed[found] == wanted).all():
            raise OtherFormError("it leads to nodes that are not there")
        return found

    return find


def _layers(
    trees: NDArray[np.int64], leaf: NDArray[np.bool_], children: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Order the nodes by tree, in each of them by level, siblings side by side; and the roots."""
    parents = np.bincount(children[~leaf].ravel(), minlength=len(leaf))
    roots = np.flatnonzero(parents == 0)
    if parents.max() > 1 or len(roots) != len(np.unique(trees)):
        raise OtherFormError("it has nodes with two parents, or trees with two roots")
    levels = [roots]
    while len(levels[-1]):
        levels.append(children[levels[-1][~leaf[levels[-1]]]].ravel())
    nodes = np.concatenate(levels)
    if len(nodes) < len(leaf):
        raise OtherFormError("it has nodes that no root leads to")
    depth = np.repeat(np.arange(len(levels)), [len(each) for each in levels])
    return nodes[np.lexsort((depth, trees[nodes]))], roots


@cache
def _compiled() -> Callable[..., None]:
    """Compile the loop: a second of work, for versions that have a forest."""
    import numba  # noqa: PLC0415 - only here: half a second and 60 MiB

    doubles, places = numba.float64[::1], numba.uint32[::1]
    types = numba.void(numba.float64[:, ::1], places, places, doubles, places, doubles, doubles)
    compiled: Callable[..., None] = numba.njit(types)(_add_up)
    return compiled


def _add_up(  # noqa: PLR0917 - compiled code is given its arrays by place
    features: NDArray[np.float64],
    roots: NDArray[np.uint32],
    feature: NDArray[np.uint32],
    threshold: NDArray[np.float64],
    left: NDArray[np.uint32],
    weight: NDArray[np.float64],
    totals: NDArray[np.float64],
) -> None:
    """Add every tree to the totals (rows,); places are of nodes, features of columns.

    All is unsigned: of other numbers numba takes the time to look for those below zero.
    """
    rows, block = np.uint64(len(features)), np.uint64(_BLOCK)
    places = np.empty(_BLOCK, np.uint32)
    for root in roots:
        for first in range(np.uint64(0), rows, block):
            many = min(block, rows - first)
            places[:] = root
            reached, moving = many * np.uint64(root), True
            while moving:
                before, reached = reached, np.uint64(0)
                for row in range(many):
                    place = places[row]
                    right = features[first + row, feature[place]] > threshold[place]
                    place = left[place] + np.uint32(right)
                    places[row] = place
                    reached += np.uint64(place)
                moving = reached != before  # children come after their parents
            for row in range(many):
                totals[first + row] += weight[places[row]]
