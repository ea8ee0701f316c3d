"""A compiled forest: the trees of an ONNX graph for many rows at once, without branches.

ONNX Runtime takes one row after the other down a tree. At about every second node the processor
predicts the wrong child. The compiled forest takes a block of rows down a tree level by level, and
it computes the next node: siblings are neighbours, so the next node is the left child plus the
result of the comparison. Leaves point to themselves. No row waits for another one, so the processor
loads many nodes at the same time. This is VPred of N. Asadi, J. Lin and A. P. de Vries, "Runtime
Optimizations for Tree-Based Machine Learning Models", IEEE TKDE 26(9), 2014.

Missing values need no branch either. If some node sends them left, each feature has two columns:
one where a missing value is larger than every threshold, and one where it is smaller. A node reads
the column of its own direction.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, ValueInfoProto, helper

from watchkeeper.serving.forest_groups import group_trees
from watchkeeper.serving.forest_nodes import ForestNodes, UnsupportedGraphError, read_nodes

_BLOCK = 64  # rows that go down a tree together
_LARGEST = np.finfo(np.float64).max


class ForestGraph(NamedTuple):
    """A graph in three parts.

    Attributes:
        before: ONNX graph from the inputs to the features, of shape [rows, features].
        forest: From the features to the sums of the leaves.
        sum_name: Name of the sums, of shape [rows, outputs].
        after: ONNX graph from the sums to the outputs.
    """

    before: bytes
    forest: "Forest"
    sum_name: str
    after: bytes


def split_at_forest(model: ModelProto) -> ForestGraph:
    """Split a graph before and after its trees.

    Raises:
        UnsupportedGraphError: The trees are not in exactly one node, or a tree has a form that is
            not supported.
    """
    graph = model.graph
    ensembles = [node for node in graph.node if node.op_type.startswith("TreeEnsemble")]
    if [node.op_type for node in ensembles] not in (["TreeEnsemble"], ["TreeEnsembleRegressor"]):
        raise UnsupportedGraphError("the trees are not in one TreeEnsemble")
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

    forest = Forest(read_nodes(ensemble))
    kind = helper.np_dtype_to_tensor_dtype(forest.dtype)
    sums = helper.make_tensor_value_info(sum_name, kind, [None, forest.outputs])
    return ForestGraph(
        part(before, graph.input, [ValueInfoProto(name=features)]),
        forest,
        sum_name,
        part(after, [sums], graph.output),
    )


class Forest:
    """Trees of which each adds to one output.

    Features, thresholds and weights are FP64, which represents FP32 exactly, so every row reaches
    the same leaves as in ONNX Runtime.

    Raises:
        UnsupportedGraphError: The trees have a form that is not supported.
    """

    def __init__(self, nodes: ForestNodes) -> None:
        order, tree = _breadth_first(nodes)
        position = np.empty(len(order), dtype=np.uint32)
        position[order] = np.arange(len(order))
        leaf, threshold = nodes.leaf[order], nodes.threshold[order]
        left = np.where(nodes.leaf, position, position[nodes.children[:, 0]])[order]
        missing_left = nodes.missing_first[order]
        self.dtype, self.outputs = nodes.dtype, len(nodes.base)
        self._base = nodes.base
        self._features = int(nodes.feature.max()) + 1
        self._two_columns = bool(missing_left.any())
        # An infinite threshold says that only missing values go right.
        self._infinite = bool(np.isposinf(threshold[~leaf]).any())
        threshold = np.where(leaf, np.inf, np.minimum(threshold, _LARGEST))
        feature = (nodes.feature[order] + self._features * missing_left).astype(np.uint32)
        roots = position[nodes.roots]
        groups = group_trees(
            tree,
            (left - roots[tree], feature, threshold),
            _targets(nodes, order, tree),
            nodes.weight[order],
        )
        kept = groups.kept
        moved = (np.cumsum(kept) - 1).astype(np.uint32)  # where each kept node is now
        self._roots, self._left = moved[roots[groups.first]], moved[left[kept]]
        self._threshold, self._feature = threshold[kept], feature[kept]
        self._targets, self._weight = groups.targets, groups.weight
        self._add_trees = _compile_add_trees()

    def sum_leaves(self, features: NDArray[Any]) -> NDArray[Any]:
        """Add the weights of the leaves that each row reaches.

        Args:
            features: Numbers of shape (rows, features).

        Returns:
            The sums, of shape (rows, outputs).

        Raises:
            ValueError: There are fewer features than the trees need.
        """
        if features.ndim != 2 or features.shape[1] < self._features:  # compiled code does not check
            raise ValueError(f"features of shape {features.shape}: {self._features} are needed")
        sums = np.repeat(self._base[:, None], len(features), axis=1)
        self._add_trees(
            self._columns(features),
            self._roots,
            self._targets,
            self._feature,
            self._threshold,
            self._left,
            self._weight,
            sums,
        )
        return np.ascontiguousarray(sums.T, dtype=self.dtype)

    def _columns(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """Return what nodes compare: one or two columns per feature, without missing values."""
        width = self._features
        values = np.empty((len(features), width * (1 + self._two_columns)))
        values[:, :width] = features[:, :width]
        if self._infinite:
            values[:, :width] = np.minimum(values[:, :width], _LARGEST)
        missing = np.isnan(values[:, :width])
        if self._two_columns:
            values[:, width:] = values[:, :width]
            values[:, width:][missing] = -np.inf
        values[:, :width][missing] = np.inf
        return values


def _targets(
    nodes: ForestNodes, order: NDArray[np.intp], tree: NDArray[np.intp]
) -> NDArray[np.uint32]:
    """Return the output that each tree adds to, of shape (trees,)."""
    leaf = nodes.leaf[order]
    target, of_tree = nodes.target[order][leaf], np.zeros(len(nodes.roots), dtype=np.int64)
    of_tree[tree[leaf]] = target
    if (of_tree[tree[leaf]] != target).any():
        raise UnsupportedGraphError("it has trees that add to several outputs")
    if of_tree.min() < 0 or of_tree.max() >= len(nodes.base) or nodes.feature.min() < 0:
        raise UnsupportedGraphError("it refers to features or outputs that do not exist")
    return of_tree.astype(np.uint32)


def _breadth_first(nodes: ForestNodes) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Order nodes by tree, then by level, with siblings as neighbours; also return their trees."""
    leaf, children = nodes.leaf, nodes.children
    parents = np.bincount(children[~leaf].ravel(), minlength=len(leaf))
    if parents.max() > 1 or parents[nodes.roots].any():
        raise UnsupportedGraphError("it has nodes with two parents")
    level, tree = nodes.roots, np.arange(len(nodes.roots))
    levels, trees = [level], [tree]
    while len(level):
        inner = ~leaf[level]
        level, tree = children[level[inner]].ravel(), np.repeat(tree[inner], 2)
        levels.append(level)
        trees.append(tree)
    if sum(map(len, levels)) < len(leaf):
        raise UnsupportedGraphError("it has nodes that no root reaches")
    depth = np.repeat(np.arange(len(levels)), [len(each) for each in levels])
    of_tree = np.concatenate(trees)
    order = np.lexsort((depth, of_tree))
    return np.concatenate(levels)[order], of_tree[order]


@cache
def _compile_add_trees() -> Callable[..., None]:
    """Compile the loop, which takes a second."""
    import numba  # noqa: PLC0415 - costs half a second and 60 MiB; only forests need it

    doubles, nodes = numba.float64[::1], numba.uint32[::1]
    rows, members = numba.float64[:, ::1], numba.uint32[:, ::1]
    types = numba.void(rows, nodes, members, nodes, doubles, nodes, rows, rows)
    compiled: Callable[..., None] = numba.njit(types)(_add_trees)
    return compiled


def _add_trees(  # noqa: PLR0917 - compiled code gets its arrays by position
    features: NDArray[np.float64],
    roots: NDArray[np.uint32],
    targets: NDArray[np.uint32],
    feature: NDArray[np.uint32],
    threshold: NDArray[np.float64],
    left: NDArray[np.uint32],
    weight: NDArray[np.float64],
    sums: NDArray[np.float64],
) -> None:
    """Add the leaf of every tree to the sums.

    All integers are unsigned: for signed ones numba also compiles a check for negative indexes.

    Args:
        features: The rows, of shape (rows, columns).
        roots: The root of each group of trees, as a node.
        targets: The output that each tree of a group adds to, of shape (groups, members).
        feature: The column that each node compares.
        threshold: What each node compares with; infinite for a leaf.
        left: The left child of each node; a leaf has itself.
        weight: The weights of each node, of shape (nodes, members); zero if it is not a leaf.
        sums: The sums so far, of shape (outputs, rows).
    """
    rows, block = np.uint64(len(features)), np.uint64(_BLOCK)
    nodes = np.empty(_BLOCK, np.uint32)
    for tree in range(np.uint64(len(roots))):
        root = roots[tree]
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
            for member in range(np.uint64(targets.shape[1])):
                target = targets[tree, member]
                for row in range(count):
                    sums[target, first + row] += weight[nodes[row], member]
