"""What an estimator cannot do is reported, and the run goes on."""

from typing import Any

import msgspec
import numpy as np
import pumps
import pytest
from lightgbm import LGBMClassifier
from pump_failure import GRADES
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import BaggingClassifier, HistGradientBoostingClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder
from sklearn.svm import LinearSVC
from xgboost import XGBClassifier

from watchkeeper.training import CannotTrainError
from watchkeeper.training.capabilities import accepts_weights
from watchkeeper.training.declaration import Model
from watchkeeper.training.export import export
from watchkeeper.training.fit import Fitted, fit
from watchkeeper.training.models import find
from watchkeeper.training.rows import Rows
from watchkeeper.training.split import split
from watchkeeper.training.usable import usable

PUMP = find("pump-failure")
PARAMETERS = PUMP.parameters()


def rows(count: int, seed: int = 0) -> Rows:
    return usable(pumps.readings(count, seed).set_index("id"), PUMP, "a test")


def features(_: Any) -> ColumnTransformer:
    """Not the principal axes of the model: they differ in the last bits between two libraries, and
    trees that compare doubles may have a threshold there."""
    numbers = [name for name in PUMP.names if name != "grade"]
    grades = OrdinalEncoder(categories=[list(GRADES)])
    return ColumnTransformer([("n", "passthrough", numbers), ("g", grades, ["grade"])])


def declared(estimator: Any, **changes: Any) -> Model:
    given = {"estimator": lambda _: estimator, "features": features, **changes}
    head = msgspec.structs.replace(PUMP.main_head, **given)
    return msgspec.structs.replace(PUMP, heads=(head,), outliers=None, balance=None)


def fitted(model: Model, recent: int = 0) -> Fitted:
    newest = rows(recent or 10, seed=1)
    newest = newest if recent else newest.where(np.zeros(10, dtype=bool))
    return fit(model, PARAMETERS, split(rows(3000), newest, model))


@pytest.mark.parametrize(
    "estimator",
    [
        XGBClassifier(n_estimators=10, n_jobs=1),
        LGBMClassifier(n_estimators=10, n_jobs=1, verbose=-1),
        HistGradientBoostingClassifier(max_iter=10),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_a_booster_gets_an_onnx_form(estimator: Any) -> None:
    model = declared(estimator)
    done = fitted(model)
    exported = export(model, PARAMETERS, done)
    (head,) = exported.heads
    assert exported.consequences == done.consequences == []
    assert list(exported.files) == [head.onnx]
    assert head.onnx_difference is not None
    assert head.onnx_difference < 1e-6


def test_an_estimator_without_onnx_form_is_reported_with_its_cost() -> None:
    model = declared(KNeighborsClassifier())
    exported = export(model, PARAMETERS, fitted(model))
    (head,) = exported.heads
    (consequence,) = exported.consequences
    assert head.onnx is None
    assert not exported.files
    assert "KNeighborsClassifier" in consequence
    assert "ms here" in consequence


def test_without_the_onnx_form_nothing_is_reported() -> None:
    model = declared(KNeighborsClassifier())
    off = msgspec.structs.replace(PARAMETERS, onnx="off")
    exported = export(model, off, fitted(model))
    assert not exported.consequences


def test_an_estimator_without_weights_is_reported_where_rows_have_weights() -> None:
    model = declared(KNeighborsClassifier())
    assert not fitted(model).consequences
    (consequence,) = fitted(model, recent=200).consequences
    assert "KNeighborsClassifier accepts no sample_weight" in consequence
    assert "recent rows counts as much as a row of the history" in consequence


def test_weights_are_passed_only_to_what_accepts_them_inside_too() -> None:
    assert accepts_weights(BaggingClassifier(HistGradientBoostingClassifier()))
    assert not accepts_weights(BaggingClassifier(KNeighborsClassifier()))


def test_an_estimator_without_probabilities_has_its_decision_function_as_score() -> None:
    model = declared(LinearSVC())
    done = fitted(model)
    (consequence,) = done.consequences
    assert "LinearSVC has no predict_proba" in consequence
    (head,) = export(model, PARAMETERS, done).heads
    assert head.method == "decision_function"
    assert done.held.scores[head.score].min() < 0.0


def test_an_estimator_that_no_server_would_load_is_refused_before_it_is_judged() -> None:
    model = declared(KNeighborsClassifier(), features=lambda _: FunctionTransformer(own_function))
    with pytest.raises(CannotTrainError, match=r"not trusted.*own_function"):
        fitted(model)


def own_function(columns: Any) -> Any:
    return columns.drop(columns="grade")
