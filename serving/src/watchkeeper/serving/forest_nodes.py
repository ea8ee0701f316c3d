"""The trees of an ONNX node as arrays.

Training exports ``TreeEnsemble``. Versions of earlier releases have ``TreeEnsembleRegressor``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, numpy_helper

_LEQ, _SUM, _NO_TRANSFORM = 0, 1, 0  # of TreeEnsemble

Given = dict[str, AttributeProto]


class UnsupportedGraphError(ValueError):
    """The graph or its trees have a form that the compiled forest does not support."""


class ForestNodes(NamedTuple):
    """All nodes of all trees.

    Attributes:
        roots: The root of each tree, as a node; of shape (trees,).
        leaf: Whether each node is a leaf; of shape (nodes,), like the following ones.
        feature: The feature that it compares; 0 for a leaf.
        threshold: What it compares with; a row with at most this value goes to the first child.
        missing_first: Whether a missing value goes to the first child.
        weight: The weight of a leaf; 0 for other nodes.
        target: The output that a leaf adds to; 0 for other nodes.
        children: The children of each node, of shape (nodes, 2); 0 for a leaf.
        base: The start of each sum, of shape (outputs,).
        dtype: The type of the sums.
    """

    roots: NDArray[np.intp]
    leaf: NDArray[np.bool_]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    missing_first: NDArray[np.bool_]
    weight: NDArray[np.float64]
    target: NDArray[np.int64]
    children: NDArray[np.intp]
    base: NDArray[np.float64]
    dtype: np.dtype[Any]


def read_nodes(node: NodeProto) -> ForestNodes:
    """Read the trees of an ONNX node.

    Raises:
        UnsupportedGraphError: The trees have a form that is not supported.
    """
    given = {each.name: each for each in node.attribute}
    return _ensemble(given) if node.op_type == "TreeEnsemble" else _regressor(given)


def _ensemble(given: Given) -> ForestNodes:
    """Read a TreeEnsemble, which has inner nodes and leaves in separate lists."""
    modes = _tensor(given, "nodes_modes")
    if (modes != _LEQ).any():
        raise UnsupportedGraphError(f"its nodes have the modes {np.unique(modes).tolist()}")
    for name, supported in (("aggregate_function", _SUM), ("post_transform", _NO_TRANSFORM)):
        if name in given and given[name].i != supported:
            raise UnsupportedGraphError(f"{name} is {given[name].i}, not {supported}")
    splits, weights = _tensor(given, "nodes_splits"), _tensor(given, "leaf_weights")
    inner, leaves = len(splits), len(weights)
    children = np.zeros((inner + leaves, 2), dtype=np.intp)
    for side, name in enumerate(("true", "false")):
        to_leaf = _integers(given, f"nodes_{name}leafs")
        children[:inner, side] = _integers(given, f"nodes_{name}nodeids") + inner * to_leaf
    if not ((children >= 0) & (children < inner + leaves)).all():
        raise UnsupportedGraphError("it refers to nodes that do not exist")
    leaf = np.arange(inner + leaves) >= inner
    no_target = np.zeros(inner, dtype=np.int64)
    missing = _integers(given, "nodes_missing_value_tracks_true")
    return ForestNodes(
        _integers(given, "tree_roots").astype(np.intp),
        leaf,
        np.append(_integers(given, "nodes_featureids"), np.zeros(leaves, dtype=np.int64)),
        np.append(splits.astype(np.float64), np.zeros(leaves)),
        np.append(missing if len(missing) else np.zeros(inner), np.zeros(leaves)).astype(bool),
        np.append(np.zeros(inner), weights.astype(np.float64)),
        np.append(no_target, _integers(given, "leaf_targetids")),
        children,
        np.zeros(given["n_targets"].i),
        splits.dtype,
    )


def _regressor(given: Given) -> ForestNodes:
    """Read a TreeEnsembleRegressor, whose leaves are nodes and have numbers in their trees."""
    modes = np.array(given["nodes_modes"].strings)
    leaf = modes == b"LEAF"
    if not (leaf | (modes == b"BRANCH_LEQ")).all():
        raise UnsupportedGraphError(f"its nodes have the modes {set(modes.tolist())}")
    for name, supported in (("aggregate_function", b"SUM"), ("post_transform", b"NONE")):
        if name in given and given[name].s != supported:
            raise UnsupportedGraphError(f"{name} is {given[name].s!r}, not {supported!r}")
    if given["n_targets"].i != 1 or _integers(given, "target_ids").any():
        raise UnsupportedGraphError("it has more than one target")
    trees = _integers(given, "nodes_treeids")
    find = _node_lookup(trees, _integers(given, "nodes_nodeids"))
    children = np.zeros((len(leaf), 2), dtype=np.intp)
    for side, name in enumerate(("nodes_truenodeids", "nodes_falsenodeids")):
        children[~leaf, side] = find(trees[~leaf], _integers(given, name)[~leaf])
    weight = np.zeros(len(leaf))
    with_weight = find(_integers(given, "target_treeids"), _integers(given, "target_nodeids"))
    np.add.at(weight, with_weight, _doubles(given, "target_weights"))
    roots = np.flatnonzero(np.bincount(children[~leaf].ravel(), minlength=len(leaf)) == 0)
    if len(roots) != len(np.unique(trees)):
        raise UnsupportedGraphError("it has trees with two roots")
    missing = _integers(given, "nodes_missing_value_tracks_true")
    return ForestNodes(
        roots,
        leaf,
        np.where(leaf, 0, _integers(given, "nodes_featureids")),
        np.where(leaf, 0.0, _doubles(given, "nodes_values")),
        ~leaf & (missing.astype(bool) if len(missing) else False),
        weight,
        np.zeros(len(leaf), dtype=np.int64),
        children,
        np.array([_doubles(given, "base_values").sum()]),
        np.dtype(np.float32),
    )


def _tensor(given: Given, name: str) -> NDArray[Any]:
    return np.asarray(numpy_helper.to_array(given[name].t))


def _integers(given: Given, name: str) -> NDArray[np.int64]:
    values = given[name].ints if name in given else []
    return np.fromiter(values, np.int64, len(values))  # without a list of a million integers


def _doubles(given: Given, name: str) -> NDArray[np.float64]:
    if f"{name}_as_tensor" in given:
        return _tensor(given, f"{name}_as_tensor").astype(np.float64)
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
