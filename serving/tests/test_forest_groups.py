"""A forest with several outputs goes down each tree once, and adds up all its outputs."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    RandomForestClassifier,
)

from watchkeeper.pipeline.frameworks import framework_of
from watchkeeper.serving.forest import split_at_forest
from watchkeeper.serving.forest_groups import group_trees
from watchkeeper.training.onnx_trees import trees_model

ROWS, FEATURES = 800, 6
MAKE: dict[str, tuple[Any, str]] = {
    "ten classes": (RandomForestClassifier(15, max_depth=7, random_state=0), "predict_proba"),
    "boosting of ten classes": (
        GradientBoostingClassifier(n_estimators=4, random_state=0),
        "predict_proba",
    ),
    "a number": (ExtraTreesRegressor(15, max_depth=7, random_state=0), "predict"),
}


def fitted(name: str) -> tuple[Any, Any, np.ndarray]:
    estimator, method = MAKE[name]
    random = np.random.default_rng(0)
    values = random.normal(size=(ROWS, FEATURES))
    values[random.random(values.shape) < 0.05 * (name != "boosting of ten classes")] = np.nan
    known = np.nan_to_num(values)
    target = np.digitize(known[:, 0] + known[:, 1] ** 2, np.linspace(-1.0, 3.0, 9))
    estimator.fit(values, target)
    return estimator, framework_of(estimator).trees(estimator, method), values


@pytest.mark.parametrize("name", MAKE)
def test_the_sums_are_those_of_onnx_runtime(name: str) -> None:
    _, trees, values = fitted(name)
    model = trees_model(trees)
    split = split_at_forest(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    before = onnxruntime.InferenceSession(split.before)
    after = onnxruntime.InferenceSession(split.after)
    for rows in (1, 2, 3, 7, 8, 9, 63, 64, 65, ROWS):
        (expected,) = session.run(None, {"features": values[:rows]})
        (features,) = before.run(None, {"features": values[:rows]})
        (got,) = after.run(None, {split.sum_name: split.forest.sum_leaves(features)})
        assert got == pytest.approx(expected, abs=1e-12)


def test_trees_that_differ_in_their_leaves_only_are_walked_once() -> None:
    estimator, trees, _ = fitted("ten classes")
    assert split_at_forest(trees_model(trees)).forest.groups == len(estimator.estimators_)
    estimator, trees, _ = fitted("boosting of ten classes")
    assert split_at_forest(trees_model(trees)).forest.groups == 4 * 10


@settings(deadline=None)
@given(
    shapes=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    data=st.data(),
)
def test_grouped_trees_keep_their_weights_and_targets(
    shapes: list[int], data: st.DataObject
) -> None:
    targets = np.array(
        data.draw(st.lists(st.integers(0, 2), min_size=len(shapes), max_size=len(shapes))),
        dtype=np.uint32,
    )
    sizes = [1 + 2 * shape for shape in shapes]
    tree = np.repeat(np.arange(len(shapes)), sizes)
    comparison = np.concatenate([np.arange(size, dtype=float) + size for size in sizes])
    weight = data.draw(arrays(np.float64, len(tree), elements=st.integers(-9, 9).map(float)))
    groups = group_trees(tree, [comparison], targets, weight)

    def total(place: int, target: int) -> float:
        """The weights at one place of all trees of a size, for an output."""
        starts = np.flatnonzero(np.diff(tree, prepend=-1))
        return sum(
            weight[start + place]
            for start, size, of in zip(starts, sizes, targets, strict=True)
            if size > place and of == target and size == sizes[0]
        )

    firsts = np.flatnonzero(np.diff(tree[groups.kept], prepend=-1))
    for target in range(3):
        for place in range(sizes[0]):
            found = sum(
                groups.weight[begin + place][groups.targets[number] == target].sum()
                for number, begin in enumerate(firsts)
                if sizes[groups.first[number]] == sizes[0]
            )
            assert found == total(place, target)
