"""The compiled forest has the same scores as ONNX Runtime, or is not used."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Union

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper

from watchkeeper.core.head import Head
from watchkeeper.core.signature import Column, Signature
from watchkeeper.serving.engine import OnnxEngine
from watchkeeper.serving.forest import split_at_forest
from watchkeeper.serving.forest_nodes import UnsupportedGraphError

SCORE = "score"
HEAD = Head(SCORE, f"{SCORE}.skops", "predict", f"{SCORE}.onnx", 0.0)
WIDTH = 3
SIGNATURE = Signature(tuple(Column(f"x{n}", "FP64") for n in range(WIDTH)), ())
KINDS = {np.float32: TensorProto.FLOAT, np.float64: TensorProto.DOUBLE}
Kind = type[np.float32] | type[np.float64]


class Split(NamedTuple):
    feature: int
    threshold: float
    left: "Tree"
    right: "Tree"


Tree = Union[Split, float]  # a leaf is its weight  # noqa: UP007


def ensemble(trees: list[Tree], kind: Kind, **changes: object) -> onnx.ModelProto:
    """A graph with these trees and the columns of ``SIGNATURE``."""
    nodes: dict[str, list] = {
        name: [] for name in ("treeids", "nodeids", "featureids", "values", "modes")
    }
    nodes |= {"truenodeids": [], "falsenodeids": []}
    target: dict[str, list] = {name: [] for name in ("treeids", "nodeids", "ids", "weights")}
    for number, tree in enumerate(trees):
        waiting, many = [(0, tree)], 1
        while waiting:
            node, part = waiting.pop()
            row = {"treeids": number, "nodeids": node, "featureids": 0, "values": 0.0}
            row |= {"modes": "LEAF", "truenodeids": 0, "falsenodeids": 0}
            if isinstance(part, Split):
                row |= {"featureids": part.feature, "values": part.threshold}
                row |= {"modes": "BRANCH_LEQ", "truenodeids": many, "falsenodeids": many + 1}
                waiting += [(many, part.left), (many + 1, part.right)]
                many += 2
            else:
                for name, value in zip(target, (number, node, 0, part), strict=True):
                    target[name].append(value)
            for name, value in row.items():
                nodes[name].append(value)
    attributes = {f"nodes_{name}": values for name, values in nodes.items()}
    attributes |= {f"target_{name}": values for name, values in target.items()}
    attributes |= {"n_targets": 1, **changes}
    if kind is np.float64:
        for name in ("nodes_values", "target_weights"):
            values = attributes.pop(name)
            shape = [len(values)]
            attributes[f"{name}_as_tensor"] = helper.make_tensor(
                name, TensorProto.DOUBLE, shape, values
            )
    return graph(
        helper.make_node("Concat", [column.name for column in SIGNATURE.inputs], ["x"], axis=1),
        helper.make_node("Cast", ["x"], ["features"], to=KINDS[kind]),
        helper.make_node(
            "TreeEnsembleRegressor", ["features"], ["sum"], domain="ai.onnx.ml", **attributes
        ),
        helper.make_node("Cast", ["sum"], [SCORE], to=TensorProto.DOUBLE),
    )


def graph(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    double = TensorProto.DOUBLE
    inputs = [helper.make_tensor_value_info(c.name, double, [None, 1]) for c in SIGNATURE.inputs]
    output = helper.make_tensor_value_info(SCORE, double, None)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    made = helper.make_graph(nodes, "made", inputs, [output])
    return helper.make_model(made, opset_imports=opsets, ir_version=8)


def engine(model: onnx.ModelProto, folder: Path) -> OnnxEngine:
    path = folder / f"{SCORE}.onnx"
    onnx.save(model, path)
    return OnnxEngine(path, HEAD, SIGNATURE)


def ask(engine: OnnxEngine, rows: np.ndarray) -> np.ndarray:
    return engine.values({column.name: rows[:, n] for n, column in enumerate(SIGNATURE.inputs)})


def by_onnx_runtime(model: onnx.ModelProto, rows: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    columns = {column.name: rows[:, [n]] for n, column in enumerate(SIGNATURE.inputs)}
    (scores,) = session.run([SCORE], columns)
    return np.asarray(scores, np.float64).ravel()


def by_hand(trees: list[Tree], rows: np.ndarray) -> np.ndarray:
    def leaf(tree: Tree, row: np.ndarray) -> float:
        while isinstance(tree, Split):
            tree = tree.left if row[tree.feature] <= tree.threshold else tree.right
        return tree

    return np.array([sum(leaf(tree, row) for tree in trees) for row in rows])


def grown(random: np.random.Generator, depth: int, stop: float, kind: Kind) -> Tree:
    # A weight of few bits: its sums are exact in every order and precision.
    if depth == 0 or random.random() < stop:
        return int(random.integers(-64, 64)) / 64
    children = [grown(random, depth - 1, stop, kind) for _ in "lr"]
    return Split(int(random.integers(WIDTH)), float(kind(random.normal())), *children)


def chain(random: np.random.Generator, length: int, kind: Kind) -> Tree:
    tree: Tree = 0.5
    for _ in range(length):
        sides: list[Tree] = [tree, float(random.integers(8))]
        random.shuffle(sides)
        tree = Split(int(random.integers(WIDTH)), float(kind(random.normal())), *sides)
    return tree


def thresholds(tree: Tree) -> Iterator[float]:
    if isinstance(tree, Split):
        yield tree.threshold
        for child in (tree.left, tree.right):
            yield from thresholds(child)


SHAPES = {
    "leaves alone": (5, 0, 0.0),
    "stumps": (50, 1, 0.0),
    "complete": (20, 7, 0.0),
    "ragged": (40, 12, 0.2),
    "one": (1, 9, 0.1),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [*SHAPES, "deep and narrow"])
def test_forest_scores_like_onnx_runtime(
    shape: str, kind: Kind, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    random = np.random.default_rng(len(shape))
    if shape in SHAPES:
        many, depth, stop = SHAPES[shape]
        trees = [grown(random, depth, stop, kind) for _ in range(many)]
    else:
        trees = [chain(random, 150, kind) for _ in range(3)]
    model = ensemble(trees, kind, base_values=[0.25])
    served = engine(model, tmp_path)
    assert "the compiled forest runs its trees" in caplog.text
    on = np.array([t for tree in trees for t in thresholds(tree)] or [0.0])
    values = np.concatenate(
        [on, np.nextafter(on, np.inf, dtype=kind), np.nextafter(on, -np.inf, dtype=kind)]
    )
    rows = random.choice([*values, *random.normal(size=len(values))], (300, WIDTH))
    expected = by_onnx_runtime(model, rows)
    assert np.array_equal(expected, by_hand(trees, rows.astype(kind)) + 0.25)
    for many in (1, 2, 63, 64, 65, 127, 128, 129, 300):
        assert np.array_equal(ask(served, rows[:many]), expected[:many])


values = st.sampled_from([0.0, -0.0, 1.0, 0.1, -1e30, 1e-45, 3.4e38])
trees = st.recursive(
    st.integers(-8, 8).map(float),
    lambda tree: st.builds(Split, st.integers(0, WIDTH - 1), values, tree, tree),
    max_leaves=30,
)
cells = st.one_of(values, st.sampled_from([np.nan, np.inf, -np.inf]))


@settings(deadline=None)
@given(
    forest=st.lists(trees, min_size=1, max_size=5),
    rows=arrays(np.float64, st.tuples(st.integers(1, 70), st.just(WIDTH)), elements=cells),
    kind=st.sampled_from(list(KINDS)),
)
def test_any_trees_score_any_values_like_onnx_runtime(
    forest: list[Tree], rows: np.ndarray, kind: Kind
) -> None:
    as_kind = [rounded(tree, kind) for tree in forest]
    model = ensemble(as_kind, kind)
    expected = by_onnx_runtime(model, rows)
    with np.errstate(over="ignore"):
        features = rows.astype(kind)
    assert np.array_equal(split_at_forest(model).forest.sum_leaves(features).ravel(), expected)


def rounded(tree: Tree, kind: Kind) -> Tree:
    if not isinstance(tree, Split):
        return tree
    children = (rounded(child, kind) for child in (tree.left, tree.right))
    return Split(tree.feature, float(kind(tree.threshold)), *children)


STUMP = Split(0, 0.5, 0.25, 0.75)
UNSUPPORTED = {
    "unsupported comparison": ensemble(
        [STUMP], np.float32, nodes_modes=["BRANCH_LT", "LEAF", "LEAF"]
    ),
    "unsupported aggregate": ensemble([STUMP], np.float32, aggregate_function="MAX"),
    "post transform": ensemble([STUMP], np.float32, post_transform="PROBIT"),
    "leaf with two parents": ensemble([STUMP], np.float32, nodes_falsenodeids=[1, 0, 0]),
    "no trees": graph(helper.make_node("Identity", ["x0"], [SCORE])),
}


@pytest.mark.parametrize("other", UNSUPPORTED)
def test_unsupported_graph_runs_in_onnx_runtime(
    other: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(UnsupportedGraphError):
        split_at_forest(UNSUPPORTED[other])
    assert_forest_unused(UNSUPPORTED[other], tmp_path, caplog)


def test_graph_of_two_ensembles_runs_in_onnx_runtime(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    *front, first, _ = ensemble([STUMP], np.float32).graph.node
    second = onnx.NodeProto()
    second.CopyFrom(first)
    second.output[0] = "again"
    add = helper.make_node("Add", ["sum", "again"], ["both"])
    out = helper.make_node("Cast", ["both"], [SCORE], to=TensorProto.DOUBLE)
    assert_forest_unused(graph(*front, first, second, add, out), tmp_path, caplog)


def test_graph_that_needs_a_column_after_the_trees_runs_in_onnx_runtime(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    *front, trees, _ = ensemble([STUMP], np.float32).graph.node
    wide = helper.make_node("Cast", ["sum"], ["wide"], to=TensorProto.DOUBLE)
    add = helper.make_node("Add", ["wide", "x0"], [SCORE])
    assert_forest_unused(graph(*front, trees, wide, add), tmp_path, caplog)


def test_forest_with_different_scores_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # In an FP32 sum, the middle one is lost.
    assert_forest_unused(ensemble([2.0**30, 1.0, -(2.0**30)], np.float32), tmp_path, caplog)
    assert "scores differ by 1.0e+00" in caplog.text


def assert_forest_unused(
    model: onnx.ModelProto, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    served = engine(model, folder)
    assert "ONNX Runtime runs the whole graph" in caplog.text
    rows = np.random.default_rng(0).uniform(0.1, 0.9, (32, WIDTH))
    assert np.array_equal(ask(served, rows), by_onnx_runtime(model, rows))
