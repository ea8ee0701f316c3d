"""Frameworks: what they recognise, save and load, and what happens without their library."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from catboost import CatBoostClassifier, CatBoostRegressor
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from xgboost import XGBClassifier, XGBRegressor

from watchkeeper.core.answer import AnswerPolicy, Risk, outputs_of
from watchkeeper.core.head import Head
from watchkeeper.core.policies import DriftPolicy, RolloutPolicy
from watchkeeper.core.signature import Column, Signature
from watchkeeper.core.version import BrokenVersionError, Lineage, Manifest, seal
from watchkeeper.pipeline import MissingLibraryError, load, score
from watchkeeper.pipeline.files import framework_name, load_pipeline, save_pipeline
from watchkeeper.pipeline.frameworks import (
    UnsupportedEstimatorError,
    framework,
    framework_of,
    frameworks,
)
from watchkeeper.pipeline.mlflow_model import _load_pyfunc

pytestmark = pytest.mark.filterwarnings("ignore:X does not have valid feature names")

NAMES = ["a", "b", "c"]
CATBOOST: dict[str, Any] = {"iterations": 20, "verbose": 0, "allow_writing_files": False}
LIGHTGBM: dict[str, Any] = {"n_estimators": 20, "verbose": -1}


def table(rows: int, seed: int = 0, missing: float = np.nan) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    values = random.normal(size=(rows, len(NAMES)))
    values[random.random(values.shape) < 0.1] = missing
    return pd.DataFrame(values, columns=NAMES)


def fitted(estimator: Any, missing: float = np.nan) -> Pipeline:
    frame = table(400, missing=missing)
    target = np.nan_to_num(frame["a"]) + np.nan_to_num(frame["b"]) > 0.3
    steps = [("features", FunctionTransformer()), ("estimator", estimator)]
    return Pipeline(steps).fit(frame, target.astype(int))


def head_of(pipeline: Pipeline, method: Any = "predict_proba") -> Head:
    return Head("score", "score.skops", method, framework=framework_name(pipeline))


CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "sklearn": lambda: HistGradientBoostingClassifier(max_iter=20),
    "xgboost": lambda: XGBClassifier(n_estimators=20),
    "lightgbm": lambda: LGBMClassifier(**LIGHTGBM),
    "catboost": lambda: CatBoostClassifier(**CATBOOST),
}
REGRESSORS: dict[str, Callable[[], Any]] = {
    "xgboost": lambda: XGBRegressor(n_estimators=20),
    "lightgbm": lambda: LGBMRegressor(**LIGHTGBM),
    "catboost": lambda: CatBoostRegressor(**CATBOOST),
}


def test_every_framework_is_found_by_its_entry_point() -> None:
    known = ["catboost", "lightgbm", "onnx", "python_function", "sklearn", "xgboost"]
    assert list(frameworks()) == known
    assert all(each.name == name for name, each in frameworks().items())


@pytest.mark.parametrize(
    ("name", "make", "method"),
    [
        *((name, make, "predict_proba") for name, make in CLASSIFIERS.items()),
        *((name, make, "predict") for name, make in REGRESSORS.items()),
    ],
)
def test_a_loaded_pipeline_has_the_same_scores(
    name: str, make: Callable[[], Any], method: Any, tmp_path: Path
) -> None:
    pipeline = fitted(make())
    assert framework_name(pipeline) == name
    head, frame = head_of(pipeline, method), table(300, seed=1)
    save_pipeline(pipeline, tmp_path, head)
    assert not list(tmp_path.glob("*.pkl"))
    loaded = load_pipeline(tmp_path, head)
    assert np.array_equal(score(loaded, head, frame), score(pipeline, head, frame))


def test_a_value_that_means_missing_is_kept(tmp_path: Path) -> None:
    pipeline = fitted(XGBClassifier(n_estimators=20, missing=-999.0), missing=-999.0)
    head, frame = head_of(pipeline), table(300, seed=1, missing=-999.0)
    save_pipeline(pipeline, tmp_path, head)
    loaded = load_pipeline(tmp_path, head)
    assert np.array_equal(score(loaded, head, frame), score(pipeline, head, frame))


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_trees_after_the_best_iteration_are_not_used(name: str, tmp_path: Path) -> None:
    frame = table(400)
    target = (np.nan_to_num(frame["a"]) + np.random.default_rng(3).normal(size=400) > 0.3) * 1
    estimator = (
        XGBClassifier(n_estimators=200, early_stopping_rounds=3)
        if name == "xgboost"
        else LGBMClassifier(**LIGHTGBM | {"n_estimators": 200, "early_stopping_round": 3})
    )
    held = (
        {"eval_set": [(frame[300:], target[300:])]}
        if name == "xgboost"
        else {"eval_X": frame[300:], "eval_y": target[300:]}
    )
    estimator.fit(frame[:300], target[:300], **held)
    pipeline = Pipeline([("features", FunctionTransformer()), ("estimator", estimator)])
    head = head_of(pipeline)
    save_pipeline(pipeline, tmp_path, head)
    expected = score(pipeline, head, frame)
    assert np.array_equal(score(load_pipeline(tmp_path, head), head, frame), expected)
    trees = framework_of(estimator).trees(estimator, "predict_proba")
    assert len(trees.trees) < 100


class Derived(RandomForestClassifier):
    """A class of a user."""


def test_a_class_of_the_user_is_refused_by_name() -> None:
    message = r"Derived is of no known framework; these are known: catboost, lightgbm"
    with pytest.raises(UnsupportedEstimatorError, match=message):
        framework_of(Derived())


def own_objective(truth: Any, found: Any) -> tuple[Any, Any]:
    return found - truth, np.ones_like(found)


def test_an_objective_that_is_a_function_is_refused(tmp_path: Path) -> None:
    pipeline = fitted(XGBRegressor(n_estimators=2, objective=own_objective))
    with pytest.raises(UnsupportedEstimatorError, match="objective is a function"):
        save_pipeline(pipeline, tmp_path, head_of(pipeline, "predict"))


def test_a_pipeline_that_no_server_would_load_is_not_written(tmp_path: Path) -> None:
    pipeline = fitted(RandomForestClassifier(3))
    pipeline.steps[0] = ("features", FunctionTransformer(own_objective))
    with pytest.raises(UnsupportedEstimatorError, match=r"not trusted.*own_objective"):
        save_pipeline(pipeline, tmp_path, head_of(pipeline))
    assert not list(tmp_path.iterdir())


def test_a_framework_that_is_not_installed_is_named() -> None:
    with pytest.raises(BrokenVersionError, match=r"the framework 'torch'.*knows catboost"):
        framework("torch")


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = fitted(CLASSIFIERS["xgboost"]())
    head = head_of(pipeline)
    save_pipeline(pipeline, tmp_path, head)
    monkeypatch.setitem(sys.modules, "xgboost", None)  # as if it were not installed
    with pytest.raises(MissingLibraryError, match=r"'xgboost' is not installed.*use an image"):
        load_pipeline(tmp_path, head)


@pytest.mark.parametrize("name", ["xgboost", "lightgbm", "catboost"])
def test_a_broken_file_is_an_error_of_the_version(name: str, tmp_path: Path) -> None:
    pipeline = fitted(CLASSIFIERS[name]())
    head = head_of(pipeline)
    save_pipeline(pipeline, tmp_path, head)
    (file,) = (each for each in tmp_path.glob("score.estimator.*") if each.suffix != ".json")
    file.write_bytes(b"no model at all")
    with pytest.raises(BrokenVersionError, match=rf"{file.name}: .* cannot load it"):
        load_pipeline(tmp_path, head)


def test_a_class_that_the_framework_does_not_know_is_not_constructed(tmp_path: Path) -> None:
    pipeline = fitted(CLASSIFIERS["xgboost"]())
    head = head_of(pipeline)
    save_pipeline(pipeline, tmp_path, head)
    (tmp_path / "score.estimator.json").write_text('{"class": "Booster", "missing": null}')
    with pytest.raises(BrokenVersionError, match="its class is 'Booster'"):
        load_pipeline(tmp_path, head)


def test_zeros_of_a_sparse_matrix_are_zeros_and_not_missing() -> None:
    from sklearn.preprocessing import OneHotEncoder  # noqa: PLC0415

    frame = pd.DataFrame({"a": [0.0, 1.0, 2.0] * 100})
    target = (frame["a"] == 1.0).astype(int)
    encoder = OneHotEncoder().fit(frame)
    estimator = XGBClassifier(n_estimators=5).fit(encoder.transform(frame).toarray(), target)
    pipeline = Pipeline([("features", encoder), ("estimator", estimator)])
    expected = estimator.predict_proba(encoder.transform(frame).toarray())[:, 1]
    assert score(pipeline, head_of(pipeline), frame).tolist() == expected.tolist()


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """A version with one head of XGBoost."""
    frame = table(400, missing=0.0)
    estimator = XGBClassifier(n_estimators=5)
    pipeline = Pipeline([("features", StandardScaler()), ("estimator", estimator)])
    pipeline.fit(frame, (frame["a"] > 0.3).astype(int))
    head = head_of(pipeline)
    save_pipeline(pipeline, tmp_path, head)
    policy = AnswerPolicy((), Risk("score", medium=0.2, high=0.6))
    signature = Signature(tuple(Column(n, "FP64") for n in NAMES), outputs_of((head,), policy))
    lineage = Lineage("run", "0" * 64, 400, 0, "1", {}, "a test", 1.0)
    seal(
        tmp_path,
        Manifest("m", signature, (head,), policy, DriftPolicy(), RolloutPolicy(), lineage),
    )
    return tmp_path


def test_a_version_of_another_framework_answers(version: Path) -> None:
    frame = table(5, seed=1, missing=0.0)
    answered = load(version).answer({name: frame[name].to_numpy() for name in NAMES})
    assert set(answered) == {"score", "risk_level"}
    by_mlflow = _load_pyfunc(str(version)).predict(frame)
    assert by_mlflow["score"].tolist() == answered["score"].tolist()


def test_a_version_without_library_and_onnx_form_is_an_error(
    version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(MissingLibraryError, match="xgboost"):
        load(version)
