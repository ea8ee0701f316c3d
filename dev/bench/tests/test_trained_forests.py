"""Serving runs the trees that training exports in the compiled forest, with the same scores."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from catboost import CatBoostClassifier
from lightgbm import LGBMClassifier
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from xgboost import XGBClassifier

from watchkeeper.core.head import Head, Method
from watchkeeper.core.signature import Column, Signature
from watchkeeper.pipeline import score
from watchkeeper.serving.engine import OnnxEngine
from watchkeeper.training.onnx_form import to_onnx

COLUMNS = (
    Column("grade", "BYTES", categories=("L", "M", "H")),
    Column("vibration", "FP64", "mm/s", 0, 200),
    Column("running_hours", "FP64", "h", 0),
    Column("drift", "FP64"),
    Column("strokes", "INT64"),
)
ROWS = 700
CATBOOST: dict[str, Any] = {"iterations": 30, "verbose": 0, "allow_writing_files": False}


def random_rows(seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "grade": pd.Series(random.choice(list("LMH"), ROWS), dtype=object),
            "vibration": random.normal(40, 10, ROWS),
            "running_hours": random.exponential(50, ROWS).round(1),
            "drift": random.normal(size=ROWS),
            "strokes": random.integers(-5, 1000, ROWS),
        }
    )


def fit_pipeline(estimator: Any) -> Pipeline:
    features = ColumnTransformer(
        [
            ("grade", OneHotEncoder(categories=[["L", "M", "H"]]), ["grade"]),
            ("scaled", StandardScaler(), ["vibration", "running_hours"]),
            ("plain", "passthrough", ["drift", "strokes"]),
        ]
    )
    frame = random_rows(0)
    target = (frame["vibration"] + 10 * frame["drift"] + (frame["grade"] == "H") * 20 > 50).astype(
        int
    )
    return Pipeline([("features", features), ("estimator", estimator)]).fit(frame, target)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize(
    ("estimator", "method"),
    [
        (RandomForestClassifier(30, max_depth=1, random_state=0), "predict_proba"),
        (RandomForestClassifier(30, max_depth=8, random_state=0), "predict_proba"),
        (RandomForestClassifier(1, min_samples_leaf=400, random_state=0), "predict_proba"),
        (ExtraTreesClassifier(30, random_state=0), "predict_proba"),
        (RandomForestRegressor(30, random_state=0), "predict"),
        (GradientBoostingRegressor(n_estimators=30, random_state=0), "predict"),
        (HistGradientBoostingClassifier(max_iter=30), "predict_proba"),
        (XGBClassifier(n_estimators=30), "predict_proba"),
        (LGBMClassifier(n_estimators=30, verbose=-1), "predict_proba"),
        (CatBoostClassifier(**CATBOOST), "predict_proba"),
        (IsolationForest(n_estimators=30, random_state=0), "score_samples"),
        (IsolationForest(n_estimators=30, random_state=0), "decision_function"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_compiled_forest_scores_like_the_pipeline(
    estimator: Any, method: Method, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pipeline = fit_pipeline(estimator)
    path = tmp_path / "score.onnx"
    head = Head("score", "score.skops", method, path.name, 0.0)
    path.write_bytes(to_onnx(pipeline, head, COLUMNS))
    engine = OnnxEngine(path, head, Signature(COLUMNS, ()))
    assert "the compiled forest runs its trees" in caplog.text
    frame = random_rows(1)
    columns = {name: frame[name].to_numpy() for name in frame}
    got = engine.values(columns)
    one_by_one = [
        engine.values({name: values[n : n + 1] for name, values in columns.items()})[0]
        for n in range(ROWS)
    ]
    assert np.abs(got - one_by_one).max() < 1e-6
    assert np.abs(got - score(pipeline, head, frame)).max() < 1e-6
