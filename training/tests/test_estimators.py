"""Every estimator of the page of estimators: fitted, saved, loaded, converted, compared."""

import pytest
from estimators import CASES, PAGE, Case, examine, page

# These must convert, whatever the page says.
MUST_CONVERT = (
    "DecisionTree", "RandomForest", "ExtraTrees", "GradientBoosting", "HistGradientBoosting", "XGB",
    "LGBM", "CatBoost", "IsolationForest", "LogisticRegression", "MLP", "Ridge",
)  # fmt: skip
EXCEPT = ("gblinear", "Depthwise", "linear_tree", "categorical_features")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.task}")
def test_an_estimator_is_saved_loaded_and_converted_or_the_reason_is_known(case: Case) -> None:
    outcome = examine(case)  # fails if the loaded pipeline has other scores
    if case.name.startswith(MUST_CONVERT) and not any(name in case.name for name in EXCEPT):
        assert not outcome.reason


def test_the_page_of_estimators_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run `make reference`"
