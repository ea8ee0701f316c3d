"""Pipelines with SimpleImputer have an ONNX form, also over columns of integers."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from watchkeeper.core.signature import Column
from watchkeeper.training.declaration import Head
from watchkeeper.training.export import verified_form
from watchkeeper.training.fit import described, score_head
from watchkeeper.training.onnx_form import to_onnx
from watchkeeper.training.rows import Rows

pytestmark = pytest.mark.filterwarnings("ignore:Skipping features without any observed values")
COLUMNS = (
    *(Column(name, "FP64", nullable=True) for name in ("flow", "heat", "never")),
    Column("starts", "INT64"),
)


def table(rows: int, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    made = pd.DataFrame(
        {
            "flow": random.normal(1e6, 10.0, rows),
            "heat": random.normal(size=rows).round(1),
            "never": np.full(rows, np.nan),
            "starts": random.integers(0, 9, rows),
        }
    )
    return made.mask(random.random(made.shape) < np.array([0.3, 0.2, 0.0, 0.0])).astype(
        {"starts": np.int64}
    )


def fitted(imputer: SimpleImputer) -> tuple[Head, Any]:
    def features(_: object) -> Any:
        chosen = ColumnTransformer([("all", "passthrough", [c.name for c in COLUMNS])])
        return make_pipeline(chosen, imputer, StandardScaler())

    rows = table(600)
    head = Head("p", features, lambda _: LogisticRegression(), label="y")
    known = rows["heat"].fillna(0.0) + rows["flow"].isna() > 0.3
    pipeline = head.build(None).fit(rows, known.astype(int))  # type: ignore[arg-type]
    return head, pipeline


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("indicator", [False, True])
@pytest.mark.parametrize("strategy", ["mean", "median", "most_frequent", "constant"])
def test_the_form_has_the_scores_of_the_pipeline(
    strategy: str, indicator: bool, keep: bool
) -> None:
    imputer = SimpleImputer(strategy=strategy, add_indicator=indicator, keep_empty_features=keep)
    head, pipeline = fitted(imputer)
    asked = table(2000, seed=1)
    asked.loc[::5, "never"] = 7.0  # a value that the fit has never seen
    rows = Rows(asked, *(np.zeros(len(asked)),) * 3, np.ones(asked.shape, dtype=bool))
    scores = score_head(head, pipeline, rows)["p"]
    _, apart = verified_form(pipeline, described(head, pipeline), COLUMNS, (asked, scores), 1e-6)
    assert apart < 1e-9


def test_an_imputer_of_another_missing_value_has_no_form() -> None:
    head, pipeline = fitted(SimpleImputer(strategy="constant"))
    pipeline.named_steps["features"].named_steps["simpleimputer"].missing_values = -1.0
    with pytest.raises(NotImplementedError, match="only missing_values=nan is converted"):
        to_onnx(pipeline, described(head, pipeline), COLUMNS)
