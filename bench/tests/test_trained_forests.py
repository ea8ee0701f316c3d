"""The trees that training exports run without branches in serving, and answer as the pipeline."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from watchkeeper.contracts.signature import Column, Signature
from watchkeeper.contracts.version import Head
from watchkeeper.pipeline import score
from watchkeeper.serving.engine import OnnxEngine
from watchkeeper.training.declaration import Head as Declared
from watchkeeper.training.declaration import Method
from watchkeeper.training.export import to_onnx

COLUMNS = (
    Column("type", "BYTES", categories=("L", "M", "H")),
    Column("torque", "FP64", "Nm", 0, 200),
    Column("wear", "FP64", "min", 0),
    Column("drift", "FP64"),
    Column("strokes", "INT64"),
)
ROWS = 700


def table(seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "type": pd.Series(random.choice(list("LMH"), ROWS), dtype=object),
            "torque": random.normal(40, 10, ROWS),
            "wear": random.exponential(50, ROWS).round(1),
            "drift": random.normal(size=ROWS),
            "strokes": random.integers(-5, 1000, ROWS),
        }
    )


def pipeline(estimator: Any) -> Pipeline:
    features = ColumnTransformer(
        [
            ("type", OneHotEncoder(categories=[["L", "M", "H"]]), ["type"]),
            ("scaled", StandardScaler(), ["torque", "wear"]),
            ("plain", "passthrough", ["drift", "strokes"]),
        ]
    )
    frame = table(0)
    target = (frame["torque"] + 10 * frame["drift"] + (frame["type"] == "H") * 20 > 50).astype(int)
    return Pipeline([("features", features), ("estimator", estimator)]).fit(frame, target)


@pytest.mark.parametrize(
    ("estimator", "method"),
    [
        (RandomForestClassifier(30, max_depth=1, random_state=0), "predict_proba"),
        (RandomForestClassifier(30, max_depth=8, random_state=0), "predict_proba"),
        (RandomForestClassifier(1, min_samples_leaf=400, random_state=0), "predict_proba"),
        (ExtraTreesClassifier(30, random_state=0), "predict_proba"),
        (RandomForestRegressor(30, random_state=0), "predict"),
        (GradientBoostingRegressor(n_estimators=30, random_state=0), "predict"),
        (IsolationForest(n_estimators=30, random_state=0), "score_samples"),
        (IsolationForest(n_estimators=30, random_state=0), "decision_function"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_trained_trees_run_without_branches_and_answer_as_the_pipeline(
    estimator: Any, method: Method, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    fitted = pipeline(estimator)
    declared = Declared("score", lambda _: fitted[0], lambda _: fitted[1], method)
    path = tmp_path / "score.onnx"
    path.write_bytes(to_onnx(fitted, declared, COLUMNS))
    head = Head("score", "score.skops", method, path.name, 0.0)
    engine = OnnxEngine(path, head, Signature(COLUMNS, ()))
    assert "its trees run without branches" in caplog.text
    asked = table(1)
    columns = {name: asked[name].to_numpy() for name in asked}
    got = engine.score(columns)
    one_by_one = [
        engine.score({name: values[n : n + 1] for name, values in columns.items()})[0]
        for n in range(ROWS)
    ]
    assert np.abs(got - one_by_one).max() < 1e-6
    assert np.abs(got - score(fitted, head, asked)).max() < 1e-6
