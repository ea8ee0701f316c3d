"""The ONNX form of trees, and the names of its inputs."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    BaggingClassifier,
    GradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder
from sklearn.tree import DecisionTreeClassifier

from watchkeeper.core import head as manifest_head
from watchkeeper.core.signature import Column
from watchkeeper.pipeline import score
from watchkeeper.training.declaration import Head
from watchkeeper.training.fit import described
from watchkeeper.training.onnx_form import NoOnnxFormError, to_onnx

NAMES = ["first", "second"]
COLUMNS = tuple(Column(name, "FP64") for name in NAMES)


def form_of(pipeline: Pipeline, columns: tuple[Column, ...] = COLUMNS) -> bytes:
    return to_onnx(pipeline, version_head(pipeline), columns)


def version_head(pipeline: Pipeline) -> manifest_head.Head:
    return described(Head("score", lambda _: None, lambda _: None, label="truth"), pipeline)


def fitted(estimator: Any) -> tuple[Pipeline, pd.DataFrame]:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(300, 2)), columns=NAMES)
    target = (frame["first"] + random.normal(size=300) > 1).astype(int)
    features = ColumnTransformer([("all", "passthrough", NAMES)])
    return Pipeline([("features", features), ("estimator", estimator)]).fit(frame, target), frame


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(30, random_state=0),
        GradientBoostingClassifier(n_estimators=5, random_state=0),
        DecisionTreeClassifier(max_depth=1),
    ],
)
def test_trees_of_any_estimator_are_one_operator_in_double(estimator: Any) -> None:
    pipeline, frame = fitted(estimator)
    form = form_of(pipeline)
    model = onnx.load_model_from_string(form)
    onnx.checker.check_model(model)
    (trees,) = (node for node in model.graph.node if node.op_type.startswith("TreeEnsemble"))
    assert trees.op_type == "TreeEnsemble"
    session = onnxruntime.InferenceSession(form, providers=["CPUExecutionProvider"])
    feed = {name: frame[[name]].to_numpy() for name in NAMES}
    (scores,) = session.run(["score"], feed)
    assert scores.dtype == np.float64
    expected = score(pipeline, version_head(pipeline), frame)
    assert np.abs(scores - expected).max() < 1e-15


def test_a_tree_that_is_one_leaf_has_a_form() -> None:
    pipeline, frame = fitted(RandomForestClassifier(2, min_samples_leaf=200))
    session = onnxruntime.InferenceSession(form_of(pipeline))
    (scores,) = session.run(["score"], {name: frame[[name]].to_numpy() for name in NAMES})
    assert np.array_equal(scores, score(pipeline, version_head(pipeline), frame))


def test_an_estimator_that_nothing_converts_is_named() -> None:
    pipeline, _ = fitted(BaggingClassifier(n_estimators=2))
    with pytest.raises(NoOnnxFormError, match="BaggingClassifier"):
        form_of(pipeline)


UNUSUAL = ("force [N]", "force _N_", "größe", "1st", "shape_tensor", "shaped", "type of alloy")


def test_columns_of_any_name_are_inputs_with_exactly_that_name() -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(300, len(UNUSUAL))), columns=list(UNUSUAL))
    frame["type of alloy"] = np.array(["L", "M"], dtype=object)[random.integers(0, 2, 300)]
    target = (frame["force [N]"] + frame["shape_tensor"] > 1).astype(int)
    categories = OrdinalEncoder(categories=[["L", "M"]])
    features = ColumnTransformer(
        [("numbers", "passthrough", UNUSUAL[:-1]), ("kinds", categories, ["type of alloy"])]
    )
    estimator = RandomForestClassifier(30, random_state=0)
    pipeline = Pipeline([("features", features), ("estimator", estimator)]).fit(frame, target)
    columns = tuple(
        Column(name, "BYTES", categories=("L", "M")) if " of " in name else Column(name, "FP64")
        for name in UNUSUAL
    )
    form = form_of(pipeline, columns)
    onnx.checker.check_model(onnx.load_model_from_string(form))
    session = onnxruntime.InferenceSession(form, providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == list(UNUSUAL)
    feed = {name: frame[name].to_numpy().reshape(-1, 1) for name in UNUSUAL}
    (scores,) = session.run(["score"], feed)
    assert np.abs(scores - score(pipeline, version_head(pipeline), frame)).max() < 1e-6
