"""A model's own training function: what it gets, what it may return, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bearings
import lightgbm
import msgspec
import numpy as np
import pandas as pd
import pumps
import pytest
import xgboost
from bearing import COLUMNS, LIFE, STATE, STATES
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from watchkeeper.core.gate_report import read_report
from watchkeeper.training import CannotTrainError
from watchkeeper.training.check import check
from watchkeeper.training.declaration import Balance, DeclarationError, Head, Model
from watchkeeper.training.own_function import training_data
from watchkeeper.training.rows import Rows
from watchkeeper.training.run import Made
from watchkeeper.training.split import block_numbers
from watchkeeper.training.training_data import TrainingData
from watchkeeper.training.usable import usable


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("bearings") / "source.db"
    return pumps.database(path, bearings.readings(1500), "bearings")


def with_train(train: Callable[[TrainingData], Any], model: Model = STATE) -> Model:
    head = msgspec.structs.replace(model.heads[0], features=None, estimator=None, train=train)
    return msgspec.structs.replace(model, heads=(head,))


def checked(train: Callable[[TrainingData], Any], source: str, folder: Path) -> Made:
    return check(with_train(train), source, folder / "version")


def forest(data: TrainingData) -> RandomForestClassifier:
    return RandomForestClassifier(20, min_samples_leaf=5, random_state=data.parameters.seed)


def on_columns(data: TrainingData) -> Any:
    return forest(data).fit(data.columns, data.target, data.weight)


def on_some_columns(data: TrainingData) -> Any:
    return forest(data).fit(data.columns[["hours", "vibration"]], data.target)


def on_an_array(data: TrainingData) -> Any:
    return forest(data).fit(data.columns.to_numpy(), data.target)


def pipeline(data: TrainingData) -> Any:
    return make_pipeline(StandardScaler(), forest(data)).fit(data.columns, data.target)


def searched(data: TrainingData) -> Any:
    grid = {"logisticregression__C": [0.1, 1.0]}
    made = make_pipeline(StandardScaler(), LogisticRegression())
    return GridSearchCV(made, grid, cv=data.folds(3)).fit(data.columns, data.target)


def boosted(data: TrainingData) -> Any:
    made = xgboost.XGBClassifier(n_estimators=10, n_jobs=1)
    return made.fit(data.columns, data.target, sample_weight=data.weight)


def light(data: TrainingData) -> Any:
    made = lightgbm.LGBMClassifier(n_estimators=10, n_jobs=1, verbose=-1)
    return made.fit(data.columns, data.target, sample_weight=data.weight)


@pytest.mark.parametrize(
    "train", [on_columns, on_some_columns, on_an_array, pipeline, searched, boosted, light]
)
def test_what_a_function_returns_is_a_version_like_any_other(
    train: Callable[[TrainingData], Any], source: str, tmp_path: Path
) -> None:
    found = checked(train, source, tmp_path)
    (head,) = found.manifest.heads
    assert found.report.passed
    assert head.method == "predict_proba"
    assert head.onnx is not None, read_report(tmp_path / "version").consequences


def test_an_estimator_without_probabilities_or_onnx_form_has_consequences(
    source: str, tmp_path: Path
) -> None:
    def ridge(data: TrainingData) -> Any:
        return make_pipeline(FunctionTransformer(np.log1p), RidgeClassifier()).fit(
            data.columns, data.target
        )

    found = checked(ridge, source, tmp_path)
    (head,) = found.manifest.heads
    assert head.method == "decision_function"
    told = " ".join(read_report(tmp_path / "version").consequences)
    assert "RidgeClassifier has no predict_proba" in told
    assert head.onnx is None
    assert "no ONNX form" in told


def nothing(_: TrainingData) -> Any:
    return None


def unfitted(data: TrainingData) -> Any:
    return forest(data)


def of_two_classes(data: TrainingData) -> Any:
    return forest(data).fit(data.columns, np.asarray(data.target) > 0)


def of_names(data: TrainingData) -> Any:
    return forest(data).fit(data.columns, np.array(STATES)[data.target])


def with_another_column(data: TrainingData) -> Any:
    return forest(data).fit(data.columns.assign(age=1.0), data.target)


def of_numbers(data: TrainingData) -> Any:
    return RandomForestRegressor(3).fit(data.columns, data.target)


def broken(data: TrainingData) -> Any:
    return forest(data).fit(data.columns["speed"], data.target)


REFUSED: dict[Callable[[TrainingData], Any], str] = {
    nothing: "None was returned, and not a fitted estimator",
    unfitted: "its estimator cannot predict from the request columns: NotFittedError",
    of_two_classes: "knows the classes False, True, in this order; the task multiclass needs ok",
    of_names: "knows the classes broken, ok, worn, in this order; the task multiclass needs ok",
    with_another_column: "was fitted with 'age', which is no request column; columns are vibr",
    of_numbers: "RandomForestRegressor of sklearn has no method predict_proba|returns values of",
    broken: r"its train function raised KeyError: 'speed' \(test_own_function.py, line \d+\)",
}


@pytest.mark.parametrize("train", REFUSED)
def test_what_cannot_be_served_is_refused_with_the_name_of_the_head(
    train: Callable[[TrainingData], Any], source: str, tmp_path: Path
) -> None:
    with pytest.raises(CannotTrainError, match=f"^head 'state': .*({REFUSED[train]})"):
        checked(train, source, tmp_path)


def test_a_classifier_cannot_predict_numbers(source: str, tmp_path: Path) -> None:
    def train(data: TrainingData) -> Any:
        return forest(data).fit(data.columns, np.asarray(data.target) > 0)

    with pytest.raises(CannotTrainError, match="is a classifier, and the task regression needs"):
        check(with_train(train, LIFE), source, tmp_path / "version")


def test_values_that_are_not_finite_are_refused(source: str, tmp_path: Path) -> None:
    def train(data: TrainingData) -> Any:
        made = RandomForestRegressor(3).fit(data.columns, data.target)
        made.estimators_[0].tree_.value[:] = np.inf
        return made

    with pytest.raises(CannotTrainError, match=r"head 'life': predict returns .*finite number"):
        check(with_train(train, LIFE), source, tmp_path / "version")


def rows(count: int, seed: int) -> Rows:
    table = bearings.readings(count, seed).set_index("id")
    return usable(table, STATE, "a test")


def test_a_function_gets_raw_rows_with_weights_groups_and_classes() -> None:
    old, recent = rows(300, 1), rows(30, 2)
    blocks = block_numbers(old.key, STATE.split)
    model = msgspec.structs.replace(with_train(nothing), recent_weight=0.5)
    data = training_data(model.heads[0], model, model.parameters(), old, recent, blocks=blocks)
    assert len(data) == 330
    pd.testing.assert_frame_equal(data.columns.iloc[:300], old.columns)
    assert list(data.columns) == [column.name for column in COLUMNS]
    assert data.target is not None
    assert data.target.dtype == np.int64
    assert data.classes == STATES
    assert data.recent.tolist() == [False] * 300 + [True] * 30
    assert data.weight[data.recent].sum() == pytest.approx(0.5 * 300)
    folds = data.folds(3)
    assert sorted(place for _, test in folds for place in test) == list(range(330))
    for fitted, test in folds:
        assert not set(data.groups[fitted]) & set(data.groups[test])


def test_a_head_has_one_origin_of_its_estimator() -> None:
    with pytest.raises(DeclarationError, match="'state' needs features and estimator"):
        msgspec.structs.replace(STATE, heads=(Head("state", label="state", classes=STATES),))
    both = msgspec.structs.replace(STATE.heads[0], train=nothing)
    with pytest.raises(DeclarationError, match="'state' needs features and estimator"):
        msgspec.structs.replace(STATE, heads=(both,))
    pump = with_train(nothing, msgspec.structs.replace(LIFE, name="pump"))
    with pytest.raises(
        DeclarationError,
        match="balance prepares rows for a declared est",
    ):
        msgspec.structs.replace(
            pump,
            balance=Balance(0.2),
            heads=(Head("failed", train=nothing, label="failed"),),
            gate=type(pump.gate)(),
        )
