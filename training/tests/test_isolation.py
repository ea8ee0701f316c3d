"""The ONNX form of isolation forests with different parameters."""

import msgspec
import numpy as np
import onnxruntime
import pandas as pd
import pytest
from sklearn.ensemble import IsolationForest
from sklearn.preprocessing import StandardScaler

from watchkeeper.core.head import Method
from watchkeeper.core.signature import Column
from watchkeeper.training.declaration import Head
from watchkeeper.training.fit import described
from watchkeeper.training.onnx_form import to_onnx

COLUMNS = tuple(Column(name, "FP64") for name in "abcd")


def table(rows: int, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    values = random.normal(size=(rows, 4)) * (1.0, 100.0, 0.01, 1.0)
    values[:, 3] = random.integers(0, 3, rows)  # many equal values, large leaves
    return pd.DataFrame(values, columns=list("abcd"))


@pytest.mark.parametrize("method", ["decision_function", "score_samples", "predict"])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"contamination": 0.05},
        {"max_features": 0.5, "bootstrap": True},
        {"max_samples": 2},
        {"max_samples": 0.9, "n_estimators": 7},
    ],
)
def test_the_onnx_form_agrees_with_the_forest(method: Method, parameters: dict[str, float]) -> None:
    forest = IsolationForest(random_state=1, **{"n_estimators": 30, **parameters})
    head = Head("score", lambda _: StandardScaler(), lambda _: forest, method)
    pipeline = head.build(msgspec.convert({}, dict)).fit(table(500))
    session = onnxruntime.InferenceSession(to_onnx(pipeline, described(head, pipeline), COLUMNS))
    asked = pd.concat([table(500), table(2000, seed=3) * 1.5], ignore_index=True)
    feed = {name: asked[[name]].to_numpy() for name in asked}
    (got,) = session.run(["score"], feed)
    expected = getattr(pipeline, method)(asked)
    if method == "predict":
        sure = np.abs(pipeline.decision_function(asked)) > 1e-7  # else a rounding error decides
        assert np.array_equal(got[sure], expected[sure])
    else:
        assert np.abs(got - expected).max() < 1e-14
