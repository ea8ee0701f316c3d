"""Verification finds forms that are wrong only near thresholds, for missing values, or elsewhere
where rows of the data are not."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMClassifier
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from watchkeeper.core.head import Head
from watchkeeper.core.signature import Column
from watchkeeper.pipeline.trees import Missing, Tree, Trees
from watchkeeper.training import onnx_form
from watchkeeper.training.onnx_form import to_onnx, trees_of
from watchkeeper.training.verify import around, on_thresholds, verify

pytestmark = pytest.mark.filterwarnings("ignore:X does not have valid feature names")

NAMES = ("flow", "load")
SITES = ("north", "south", "west")
COLUMNS = (*(Column(name, "FP64") for name in NAMES), Column("site", "BYTES", categories=SITES))
HEAD = Head("score", "score.skops", "predict_proba")


def rows(count: int = 400, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame({name: random.normal(size=count) for name in NAMES})
    return frame.assign(site=random.choice(np.array(SITES[:2], dtype=object), count))


def fitted(estimator: Any) -> Pipeline:
    features = ColumnTransformer(
        [
            ("numbers", "passthrough", list(NAMES)),
            ("site", OneHotEncoder(categories=[list(SITES)], sparse_output=False), ["site"]),
        ]
    )
    frame = rows()
    target = (frame["flow"] + (frame["site"] == "north") > 0.5).astype(int)
    return Pipeline([("features", features), ("estimator", estimator)]).fit(frame, target)


def verified(pipeline: Pipeline, form: bytes, trees: Trees | None) -> str:
    given: dict[str, Any] = {"pipeline": pipeline, "head": HEAD, "columns": COLUMNS}
    return verify(form, trees, **given, rows=rows(), tolerance=1e-6)


def changed(trees: Trees, change: Any) -> Trees:
    return trees._replace(trees=[change(tree) for tree in trees.trees])


def next_threshold(tree: Tree) -> Tree:
    return tree._replace(threshold=np.nextafter(tree.threshold, np.inf))


def float32_threshold(tree: Tree) -> Tree:
    return tree._replace(threshold=tree.threshold.astype(np.float32).astype(float))


def missing_goes_left(tree: Tree) -> Tree:
    return tree._replace(missing_left=np.ones_like(tree.missing_left))


ESTIMATORS = {
    "forest": lambda: RandomForestClassifier(10, random_state=0),
    "histogram boosting": lambda: HistGradientBoostingClassifier(max_iter=10),
    "LightGBM": lambda: LGBMClassifier(n_estimators=10, verbose=-1),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_right_form_passes(name: str) -> None:
    pipeline = fitted(ESTIMATORS[name]())
    assert verified(pipeline, to_onnx(pipeline, HEAD, COLUMNS), trees_of(pipeline, HEAD)) == ""


@pytest.mark.parametrize(
    ("name", "change", "where"),
    [
        # A forest compares float32 numbers, of which none is between two neighbouring doubles.
        ("forest", float32_threshold, "on and next to its thresholds"),
        ("forest", missing_goes_left, "missing features"),
        ("histogram boosting", next_threshold, "on and next to its thresholds"),
        ("histogram boosting", float32_threshold, "on and next to its thresholds"),
        ("LightGBM", next_threshold, "on and next to its thresholds"),
    ],
)
def test_a_form_that_is_wrong_between_the_rows_is_found(name: str, change: Any, where: str) -> None:
    estimator = ESTIMATORS[name]()
    pipeline = fitted(estimator)
    if where == "missing features":
        values = np.where(np.random.default_rng(0).random((400, 5)) < 0.2, np.nan, 1.0)
        estimator.fit(values, np.isnan(values[:, 0]).astype(int))
    trees = trees_of(pipeline, HEAD)
    assert trees is not None
    wrong = changed(trees, change)
    assert where in verified(pipeline, to_onnx(pipeline, HEAD, COLUMNS), wrong)


def test_a_form_that_is_wrong_on_thresholds_of_columns_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline = fitted(ESTIMATORS["histogram boosting"]())
    right = trees_of(pipeline, HEAD)
    assert right is not None
    monkeypatch.setattr(onnx_form, "trees_of", lambda *_: changed(right, float32_threshold))
    form = to_onnx(pipeline, HEAD, COLUMNS)
    assert "requests with values on its thresholds" in verified(pipeline, form, right)


def test_a_category_that_no_row_has_is_compared() -> None:
    pipeline = fitted(ESTIMATORS["forest"]())
    form = to_onnx(pipeline, HEAD, COLUMNS)
    other = fitted(ESTIMATORS["forest"]())
    names = [["north", "south", "other"]]
    other.named_steps["features"].named_transformers_["site"].categories_ = [np.array(names[0])]
    other.named_steps["features"].named_transformers_["site"].handle_unknown = "error"
    assert verified(pipeline, form, None) == ""
    assert verified(other, form, None) == ""  # it refuses the category, so nothing can differ


def test_made_features_are_on_next_to_and_rounded_from_thresholds() -> None:
    tree = Tree(
        np.zeros(3, dtype=np.int64),
        np.array([0.1, 0.0, 0.0]),
        np.array([1, -1, -1]),
        np.array([2, -1, -1]),
        np.zeros(3, dtype=bool),
        np.array([0.0, 1.0, 2.0]),
    )
    trees = Trees([tree], 2, np.zeros(1), missing=Missing(zeros=(1,), nearly_zero=1e-35))
    made = on_thresholds(trees, np.full((5, 2), 7.0), np.random.default_rng(0))
    wanted = {0.1, float(np.nextafter(0.1, 1)), float(np.nextafter(0.1, 0)), float(np.float32(0.1))}
    assert wanted <= set(made[:, 0].tolist())
    assert {1e-35, -1e-35, 0.0} <= set(made[:, 1].tolist())


def test_infinite_thresholds_are_no_values() -> None:
    assert np.isfinite(around(np.array([np.inf, 1e300, 1.0]))).all()
