"""The ONNX form of forests that vote, and the names of its inputs."""

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

from watchkeeper.core.head import Head
from watchkeeper.core.signature import Column
from watchkeeper.pipeline import values
from watchkeeper.training.onnx_form import to_onnx

NAMES = ["first", "second"]
COLUMNS = tuple(Column(name, "FP64") for name in NAMES)


@pytest.mark.parametrize(
    ("estimator", "operator"),
    [
        (RandomForestClassifier(30, random_state=0), "TreeEnsembleRegressor"),
        (GradientBoostingClassifier(n_estimators=5, random_state=0), "TreeEnsembleClassifier"),
    ],
)
def test_only_votes_that_are_probabilities_become_a_regressor(
    estimator: RandomForestClassifier | GradientBoostingClassifier, operator: str
) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(300, 2)), columns=NAMES)
    target = (frame["first"] + random.normal(size=300) > 1).astype(int)
    features = ColumnTransformer([("all", "passthrough", NAMES)])
    pipeline = Pipeline([("features", features), ("estimator", estimator)]).fit(frame, target)
    head = Head("score", "score.skops", "predict_proba")
    form = to_onnx(pipeline, head, COLUMNS)
    operators = {node.op_type for node in onnx.load_model_from_string(form).graph.node}
    assert operator in operators
    columns = {name: frame[name].to_numpy() for name in NAMES}
    feed = {name: values.reshape(-1, 1) for name, values in columns.items()}
    session = onnxruntime.InferenceSession(form, providers=["CPUExecutionProvider"])
    (scores,) = session.run([head.score], feed)
    assert np.abs(scores - values(pipeline, head, frame)[:, 1]).max() < 1e-6


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
    head = Head("score", "score.skops", "predict_proba")
    columns = tuple(
        Column(name, "BYTES", categories=("L", "M")) if " of " in name else Column(name, "FP64")
        for name in UNUSUAL
    )
    form = to_onnx(pipeline, head, columns)
    onnx.checker.check_model(onnx.load_model_from_string(form))
    session = onnxruntime.InferenceSession(form, providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == list(UNUSUAL)
    feed = {name: frame[name].to_numpy().reshape(-1, 1) for name in UNUSUAL}
    (scores,) = session.run([head.score], feed)
    assert np.abs(scores - values(pipeline, head, frame)[:, 1]).max() < 1e-6
