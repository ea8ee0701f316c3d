"""The page of estimators that convert to ONNX: each is fitted, saved, loaded, converted, compared.

The tests of training run this list, too, and check that the page in the documentation is right.
"""

import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from catboost import CatBoostClassifier, CatBoostRegressor
from lightgbm import LGBMClassifier, LGBMRegressor
from numpy.typing import NDArray
from sklearn import (
    calibration,
    discriminant_analysis,
    ensemble,
    linear_model,
    naive_bayes,
    neighbors,
    neural_network,
    svm,
    tree,
)
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder
from threadpoolctl import threadpool_limits
from xgboost import XGBClassifier, XGBRegressor, XGBRFClassifier, XGBRFRegressor

from watchkeeper.core.head import Head
from watchkeeper.core.signature import Column
from watchkeeper.pipeline import score
from watchkeeper.pipeline.files import framework_name, load_pipeline, save_pipeline
from watchkeeper.training.export import explain, verified_form

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "estimators.md"
ROWS = 600
TOLERANCE = 1e-6
SITES = ("north", "south", "west")
NUMBERS = ("flow", "load", "wear", "count")
COLUMNS = (*(Column(name, "FP64") for name in NUMBERS), Column("site", "BYTES", categories=SITES))

Task = Literal["two classes", "three classes", "a number", "anomalies"]
Method = Literal["predict_proba", "decision_function", "predict"]


class Case(NamedTuple):
    """One estimator: its name in the page, how it is made, what it learns, and its method."""

    name: str
    make: Callable[[], Any]
    task: Task
    method: Method


class Outcome(NamedTuple):
    """What holds for an estimator; ``reason`` says why it has no ONNX form."""

    accepts_missing: bool
    reason: str


def _case(make: Callable[..., Any], task: Task, method: Method = "predict", **given: Any) -> Case:
    shown = {name: value for name, value in given.items() if name not in _HIDDEN}
    arguments = ", ".join(f"{name}={value!r}" for name, value in shown.items())
    name = f"{make.__name__}({arguments})" if shown else make.__name__
    return Case(name, lambda: make(**given), task, method)


_HIDDEN = {
    "allow_writing_files", "base_score", "bagging_fraction", "bagging_freq", "cv", "estimator",
    "estimators", "iterations", "max_iter", "min_child_samples", "n_estimators", "n_jobs",
    "random_state", "rate_drop", "thread_count", "verbose",
}  # fmt: skip


def _cases() -> list[Case]:
    proba: Method = "predict_proba"
    few: dict[str, Any] = {"n_estimators": 15, "random_state": 0}
    xgb: dict[str, Any] = {**few, "n_jobs": 1}
    lgb: dict[str, Any] = {**xgb, "verbose": -1, "min_child_samples": 5}
    cat: dict[str, Any] = {
        "iterations": 15, "random_state": 0, "verbose": 0, "allow_writing_files": False,
        "thread_count": 1,
    }  # fmt: skip
    forest = ensemble.RandomForestClassifier(**few)
    linear = linear_model.LogisticRegression()
    members = [("a", linear), ("b", naive_bayes.GaussianNB())]
    with_trees = [("a", linear), ("b", forest)]
    numbers = [("a", linear_model.Ridge()), ("b", linear_model.Lasso())]
    return [
        *(
            _case(make, task, proba, **arguments)
            for task in ("two classes", "three classes")
            for make, arguments in (
                (tree.DecisionTreeClassifier, {"random_state": 0}),
                (ensemble.RandomForestClassifier, few),
                (ensemble.ExtraTreesClassifier, few),
                (ensemble.GradientBoostingClassifier, few),
                (ensemble.HistGradientBoostingClassifier, {"max_iter": 15}),
                (XGBClassifier, xgb),
                (XGBClassifier, {**xgb, "booster": "dart", "rate_drop": 0.3}),
                (XGBClassifier, {**xgb, "booster": "gblinear"}),
                (XGBRFClassifier, xgb),
                (LGBMClassifier, lgb),
                (LGBMClassifier, {**lgb, "zero_as_missing": True}),
                (LGBMClassifier, {**lgb, "boosting_type": "rf", "bagging_fraction": 0.7,
                                  "bagging_freq": 1}),
                (CatBoostClassifier, cat),
                (CatBoostClassifier, {**cat, "grow_policy": "Depthwise"}),
                (linear_model.LogisticRegression, {}),
                (neural_network.MLPClassifier, {"max_iter": 30, "random_state": 0}),
                (naive_bayes.GaussianNB, {}),
                (discriminant_analysis.LinearDiscriminantAnalysis, {}),
                (neighbors.KNeighborsClassifier, {}),
            )
        ),
        _case(ensemble.HistGradientBoostingClassifier, "two classes", proba, max_iter=15,
              categorical_features=[3]),
        _case(XGBClassifier, "two classes", proba, **xgb, missing=-999.0),
        _case(LGBMClassifier, "three classes", proba, **lgb, objective="multiclassova"),
        _case(linear_model.SGDClassifier, "two classes", proba, loss="log_loss", random_state=0),
        _case(linear_model.RidgeClassifier, "two classes", "decision_function"),
        _case(svm.LinearSVC, "two classes", "decision_function"),
        _case(svm.SVC, "two classes", "decision_function"),
        _case(ensemble.AdaBoostClassifier, "two classes", proba, **few),
        _case(ensemble.BaggingClassifier, "two classes", proba, **few),
        Case("CalibratedClassifierCV of a linear model",
             lambda: calibration.CalibratedClassifierCV(linear), "two classes", proba),
        Case("CalibratedClassifierCV of a forest",
             lambda: calibration.CalibratedClassifierCV(forest, cv=3), "two classes", proba),
        Case("StackingClassifier of linear models",
             lambda: ensemble.StackingClassifier(members), "two classes", proba),
        Case("StackingClassifier with a forest",
             lambda: ensemble.StackingClassifier(with_trees, cv=3), "two classes", proba),
        _case(ensemble.VotingClassifier, "two classes", proba, estimators=members, voting="soft"),
        *(
            _case(make, "a number", **arguments)
            for make, arguments in (
                (tree.DecisionTreeRegressor, {"random_state": 0}),
                (ensemble.RandomForestRegressor, few),
                (ensemble.ExtraTreesRegressor, few),
                (ensemble.GradientBoostingRegressor, few),
                (ensemble.HistGradientBoostingRegressor, {"max_iter": 15}),
                (ensemble.HistGradientBoostingRegressor, {"max_iter": 15, "loss": "poisson"}),
                (XGBRegressor, xgb),
                (XGBRegressor, {**xgb, "objective": "count:poisson"}),
                (XGBRFRegressor, xgb),
                (LGBMRegressor, lgb),
                (LGBMRegressor, {**lgb, "objective": "poisson"}),
                (LGBMRegressor, {**lgb, "linear_tree": True}),
                (CatBoostRegressor, cat),
                (CatBoostRegressor, {**cat, "loss_function": "Poisson"}),
                (linear_model.LinearRegression, {}),
                (linear_model.Ridge, {}),
                (linear_model.ElasticNet, {}),
                (linear_model.PoissonRegressor, {}),
                (neural_network.MLPRegressor, {"max_iter": 30, "random_state": 0}),
                (neighbors.KNeighborsRegressor, {}),
                (svm.SVR, {}),
            )
        ),
        Case("StackingRegressor of linear models",
             lambda: ensemble.StackingRegressor(numbers), "a number", "predict"),
        _case(ensemble.IsolationForest, "anomalies", "decision_function", **few),
        _case(neighbors.LocalOutlierFactor, "anomalies", "decision_function", novelty=True),
    ]  # fmt: skip


CASES = _cases()


@cache
def examine(case: Case) -> Outcome:
    """Fit, save, load and convert an estimator, with missing values where it accepts them.

    Raises:
        AssertionError: The loaded pipeline has other scores than the fitted one.
    """
    with threadpool_limits(1):  # more threads than one cost more than they save for few rows
        reason = _examine(case, _table(missing=False))
        try:
            reason = _examine(case, _table(missing=True)) or reason
        except (ValueError, TypeError):  # it refuses missing values
            return Outcome(accepts_missing=False, reason=reason)
        return Outcome(accepts_missing=True, reason=reason)


def page() -> str:
    """Return the page."""
    lines = [
        "<!-- Generated by `make reference`; do not edit. -->",
        "",
        "# Estimators that convert",
        "",
        "An estimator with an ONNX form is served by ONNX Runtime and the compiled forest. An",
        "estimator without one is served by its own library, with the same answers. Training",
        "compares the form with the library, also on rows with values on and next to the",
        "thresholds of trees, with missing values, and with all categories. If one score",
        "differs by more than `tolerance` of the head (1e-6), the version has no ONNX form.",
        "",
        "A library other than scikit-learn is not in the default images. Training needs it, and so",
        "does the serving of an estimator without ONNX form.",
        "",
        "| estimator | learns | missing values | ONNX form |",
        "|---|---|---|---|",
    ]
    for case in CASES:
        accepts_missing, reason = examine(case)
        accepted = "accepts" if accepts_missing else "refuses"
        lines.append(f"| `{case.name}` | {case.task} | {accepted} | {_cell(reason)} |")
    return "\n".join(lines) + "\n"


def _cell(reason: str) -> str:
    return f"no: {reason}".replace("|", "/") if reason else "yes"


def _examine(case: Case, rows: pd.DataFrame) -> str:
    pipeline = _fitted(case, rows)
    classes = ("0", "1", "2") if case.task == "three classes" else ()
    head = Head(
        "score",
        "score.skops",
        case.method,
        task="multiclass" if classes else "binary",
        classes=classes,
        framework=framework_name(pipeline),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, about names of features
        expected = score(pipeline, head, rows)
        with tempfile.TemporaryDirectory() as folder:
            save_pipeline(pipeline, Path(folder), head)
            loaded = load_pipeline(Path(folder), head)
            if not np.array_equal(score(loaded, head, rows), expected):
                raise AssertionError(f"{case.name}: its files have lost something")
        try:
            verified_form(pipeline, head, COLUMNS, (rows, expected), TOLERANCE)
        except Exception as error:  # noqa: BLE001 - skl2onnx and ONNX Runtime can raise anything
            return explain(error)
    return ""


def _fitted(case: Case, rows: pd.DataFrame) -> Pipeline:
    features = ColumnTransformer(
        [
            ("numbers", "passthrough", list(NUMBERS)),
            ("site", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["site"]),
        ]
    )
    pipeline = Pipeline([("features", features), ("estimator", case.make())])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few iterations
        return pipeline.fit(rows, _target(case.task, rows))


def _table(*, missing: bool) -> pd.DataFrame:
    random = np.random.default_rng(0)
    rows = pd.DataFrame({name: random.normal(size=ROWS) for name in NUMBERS})
    rows["count"] = random.poisson(2.0, ROWS).astype(float)
    if missing:
        rows = rows.mask(random.random(rows.shape) < 0.1)
    return rows.assign(site=random.choice(np.array(SITES, dtype=object), ROWS))


def _target(task: Task, rows: pd.DataFrame) -> NDArray[Any] | None:
    known = rows.fillna(0.5)
    number = known["flow"] + known["load"] ** 2 - known["wear"] * known["count"]
    number = (number + 2.0 * (known["site"] == "west")).to_numpy()
    if task == "two classes":
        return np.asarray(number > 1.0, dtype=np.int64)
    if task == "three classes":
        return np.asarray(np.digitize(number, [0.0, 2.0]))
    return np.abs(number) if task == "a number" else None
