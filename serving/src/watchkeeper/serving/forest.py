"""A compiled forest: the trees of an ONNX graph for many rows at once, without branches.

ONNX Runtime takes one row after the other down a tree. At about every second node the processor
predicts the wrong child. The compiled forest takes a block of rows down a tree level by level, and
it computes the next node: siblings are neighbours, so the next node is the left child plus the
result of the comparison. Leaves point to themselves. No row waits for another one, so the processor
loads many nodes at the same time. A few rows go down several trees together. This is VPred of
N. Asadi, J. Lin and A. P. de Vries, "Runtime Optimizations for Tree-Based Machine Learning Models",
IEEE TKDE 26(9), 2014. The loops are in ``compiled/forest_loops.c``.

Missing values need no branch either. If some node sends them left, each feature has two columns:
one where a missing value is larger than every threshold, and one where it is smaller. A node reads
the column of its own direction.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, ValueInfoProto, helper

from watchkeeper.serving.forest_groups import group_trees
from watchkeeper.serving.forest_kernel import Kernel
from watchkeeper.serving.forest_nodes import ForestNodes, UnsupportedGraphError, read_nodes

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

    Attributes:
        dtype: Type of the sums.
        outputs: Number of sums of a row.
        groups: Number of groups of trees. A row goes down one tree of each.

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
        self.groups, kept = len(groups.first), groups.kept
        moved = (np.cumsum(kept) - 1).astype(np.uint32)  # where each kept node is now
        self._kernel = Kernel(
            left=moved[left[kept]],
            feature=feature[kept],
            threshold=threshold[kept],
            weight=groups.weight,
            roots=moved[roots[groups.first]],
            targets=groups.targets,
        )

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
        self._kernel.add_trees(self._columns(features), sums)
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
