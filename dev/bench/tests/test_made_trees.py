"""Any trees: ONNX Runtime and the compiled forest reach the same leaves as the definition says."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from watchkeeper.pipeline.trees import LEAF, Missing, Tree, Trees, Whole
from watchkeeper.serving.forest import Forest
from watchkeeper.serving.forest_nodes import UnsupportedGraphError, read_nodes
from watchkeeper.training.onnx_trees import trees_model

WIDTH, OUTPUTS = 3, 2
Numbers = NDArray[np.float64]

thresholds = st.sampled_from([0.0, -0.0, 0.1, 1.0, -1e30, 1e-45, 3.4e38, 2.0])
cells = st.one_of(thresholds, st.sampled_from([np.nan, -7.0, 1.5, float(np.float32(0.1)), 1e-36]))
categories = st.lists(st.integers(0, 3).map(float), min_size=1, max_size=4, unique=True)
# A weight of few bits: its sums are exact in every order.
weights = st.integers(-64, 64).map(lambda bits: bits / 64)


@st.composite
def trees(draw: st.DrawFn, members: bool) -> Tree:
    """Draw a tree: leaves are split until enough nodes are there."""
    nodes, found = 1, {}
    left, right = {}, {}
    waiting = [0]
    for _ in range(draw(st.integers(0, 12))):
        node = waiting.pop(draw(st.integers(0, len(waiting) - 1)))
        left[node], right[node] = nodes, nodes + 1
        waiting += [nodes, nodes + 1]
        nodes += 2
        if members and draw(st.booleans()):
            found[node] = np.array(draw(categories))
    inner = np.isin(np.arange(nodes), list(left))

    def each(strategy: st.SearchStrategy[float], kind: type) -> NDArray[np.generic]:
        return np.array([draw(strategy) for _ in range(nodes)], dtype=kind)

    return Tree(
        np.where(inner, each(st.integers(0, WIDTH - 1), np.int64), 0),
        np.where(inner, each(thresholds, float), 0.0),
        np.array([left.get(node, LEAF) for node in range(nodes)]),
        np.array([right.get(node, LEAF) for node in range(nodes)]),
        inner & each(st.booleans(), bool),
        np.where(inner, 0.0, each(weights, float)),
        draw(st.integers(0, OUTPUTS - 1)),
        found,
    )


@st.composite
def ensembles(draw: st.DrawFn, members: bool) -> Trees:
    return Trees(
        draw(st.lists(trees(members), min_size=1, max_size=5)),
        WIDTH,
        np.array([0.25, 0.0]),
        float32=draw(st.booleans()),
        missing=draw(
            st.sampled_from([Missing(), Missing(-7.0), Missing(zeros=(1,), nearly_zero=1e-35)])
        ),
        whole=draw(
            st.sampled_from([Whole(), Whole((0, 2), "floor"), Whole((0, 2), "towards zero")])
        ),
    )


def prepared(ensemble: Trees, values: Numbers) -> Numbers:
    values = values.astype(np.float32).astype(float) if ensemble.float32 else values.copy()
    if ensemble.missing.value is not None:
        values[values == ensemble.missing.value] = np.nan
    for feature in ensemble.missing.zeros:
        values[np.abs(values[:, feature]) <= ensemble.missing.nearly_zero, feature] = np.nan
    for feature in ensemble.whole.features:
        rounded = np.floor if ensemble.whole.rounding == "floor" else np.trunc
        values[:, feature] = rounded(values[:, feature])
    return values


def by_definition(ensemble: Trees, values: Numbers) -> Numbers:
    found = np.tile(ensemble.base, (len(values), 1))
    for place, row in enumerate(prepared(ensemble, values)):
        for tree in ensemble.trees:
            node = 0
            while not tree.leaf[node]:
                value = row[tree.feature[node]]
                if np.isnan(value):
                    goes_left = tree.missing_left[node]
                elif node in tree.members:
                    goes_left = value in tree.members[node]
                else:
                    goes_left = value <= tree.threshold[node]
                node = int((tree.left if goes_left else tree.right)[node])
            found[place, tree.output] += tree.weight[node]
    return found


def operator(model: onnx.ModelProto) -> onnx.NodeProto:
    (node,) = (node for node in model.graph.node if node.op_type == "TreeEnsemble")
    return node


rows = arrays(np.float64, st.tuples(st.integers(1, 70), st.just(WIDTH)), elements=cells)


@settings(deadline=None)
@given(ensemble=ensembles(members=True), values=rows)
def test_onnx_runtime_reaches_the_leaves_of_the_definition(
    ensemble: Trees, values: Numbers
) -> None:
    model = trees_model(ensemble)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {"features": values})
    assert np.array_equal(found, by_definition(ensemble, values))


@settings(deadline=None)
@given(ensemble=ensembles(members=False), values=rows)
def test_the_compiled_forest_reaches_the_leaves_of_the_definition(
    ensemble: Trees, values: Numbers
) -> None:
    forest = Forest(read_nodes(operator(trees_model(ensemble))))
    found = forest.sum_leaves(prepared(ensemble, values)) + ensemble.base
    assert np.array_equal(found, by_definition(ensemble, values))


@settings(deadline=None)
@given(values=rows)
def test_an_infinite_threshold_sends_only_missing_values_right(values: Numbers) -> None:
    tree = Tree(
        np.zeros(3, dtype=np.int64),
        np.array([np.inf, 0.0, 0.0]),
        np.array([1, LEAF, LEAF]),
        np.array([2, LEAF, LEAF]),
        np.zeros(3, dtype=bool),
        np.array([0.0, 1.0, 2.0]),
    )
    ensemble = Trees([tree], WIDTH, np.zeros(1))
    values[0, 0] = np.inf
    forest = Forest(read_nodes(operator(trees_model(ensemble))))
    assert np.array_equal(forest.sum_leaves(values), by_definition(ensemble, values))


def test_categories_stay_with_onnx_runtime() -> None:
    tree = Tree(
        np.zeros(3, dtype=np.int64),
        np.zeros(3),
        np.array([1, LEAF, LEAF]),
        np.array([2, LEAF, LEAF]),
        np.zeros(3, dtype=bool),
        np.array([0.0, 1.0, 2.0]),
        members={0: np.array([1.0, 2.0])},
    )
    node = operator(trees_model(Trees([tree], WIDTH, np.zeros(1))))
    with pytest.raises(UnsupportedGraphError, match="modes"):
        read_nodes(node)
