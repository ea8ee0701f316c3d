"""The models that the servers serve: trees of several libraries and tasks, with 9 features."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.pipeline import Pipeline
from xgboost import XGBClassifier

from watchkeeper.core.answer import AnswerPolicy, Label, Risk, outputs_of
from watchkeeper.core.head import Head
from watchkeeper.core.policies import DriftPolicy, RolloutPolicy
from watchkeeper.core.signature import Column, Signature
from watchkeeper.core.tasks import task_of
from watchkeeper.core.version import EXAMPLE, Example, Lineage, Manifest, seal
from watchkeeper.pipeline import load, score
from watchkeeper.pipeline.files import save_pipeline
from watchkeeper.training import onnx_form

VERSION = 1
FEATURES, ROWS, CLASSES = 9, 10_000, 10
COLUMNS = tuple(Column(f"feature_{n}", "FP64", "", -100.0, 100.0) for n in range(FEATURES))
NAMES = [column.name for column in COLUMNS]
PEER_FILE = "model.joblib"
PROBABILITY = "failure_probability"
Numbers = NDArray[np.float64]


class Model(msgspec.Struct, frozen=True):
    """What every server serves in one part of the benchmark.

    ``what`` describes it for people. ``estimator`` returns it, unfitted, from the number of trees.
    """

    name: str
    what: str
    head: Head
    trees: int
    estimator: Callable[[int], Any]
    answer: AnswerPolicy = AnswerPolicy()

    @property
    def scores(self) -> int:
        """The number of values for each row."""
        return len(task_of(self.head).scores)


def _head(score_: str, task: str, *, method: Any = "predict_proba", **more: Any) -> Head:
    return Head(score_, f"{score_}.skops", method, f"{score_}.onnx", 1e-6, task=task, **more)


FOREST = Model(
    "forest",
    "a random forest for two classes, 200 trees of depth 12",
    _head(PROBABILITY, "binary"),
    200,
    lambda trees: RandomForestClassifier(trees, max_depth=12, random_state=0),
    AnswerPolicy((Label("failure", PROBABILITY, 0.5),), Risk(PROBABILITY, 0.2, 0.6)),
)
OTHERS = (
    Model(
        "xgboost",
        "XGBoost for two classes, 500 trees of depth 6",
        _head(PROBABILITY, "binary", framework="xgboost"),
        500,
        lambda trees: XGBClassifier(n_estimators=trees, max_depth=6, n_jobs=1, random_state=0),
    ),
    Model(
        "lightgbm",
        "LightGBM for two classes, 500 trees of depth 6",
        _head(PROBABILITY, "binary", framework="lightgbm"),
        500,
        lambda trees: LGBMClassifier(
            n_estimators=trees, max_depth=6, n_jobs=1, random_state=0, verbosity=-1
        ),
    ),
    Model(
        "regressor",
        "a random forest for a number, 200 trees of depth 12",
        _head("life", "regression", method="predict", label="life"),
        200,
        lambda trees: RandomForestRegressor(trees, max_depth=12, random_state=0),
    ),
    Model(
        "classes",
        f"a random forest for {CLASSES} classes, 200 trees of depth 12",
        _head("state", "multiclass", label="state", classes=tuple(map(str, range(CLASSES)))),
        200,
        lambda trees: RandomForestClassifier(trees, max_depth=12, random_state=0),
    ),
)
MODELS = (FOREST, *OTHERS)


def rows(number: int, seed: int) -> Numbers:
    """Draw rows, of shape (number, 9)."""
    return np.random.default_rng(seed).normal(size=(number, FEATURES)).round(6)


def create(model: Model, folder: Path, trees: int | None = None) -> Pipeline:
    """Fit a model and save it twice.

    Args:
        model: The model.
        folder: Gets the version in ``version/`` and the file of the peers in ``model.joblib``.
        trees: Number of trees, if it is another one than that of the model.
    """
    features = rows(ROWS, seed=0)
    pipeline = Pipeline(
        [
            ("features", ColumnTransformer([("all", "passthrough", NAMES)])),
            ("estimator", model.estimator(trees or model.trees)),
        ]
    ).fit(pd.DataFrame(features, columns=NAMES), _target(model, features))
    folder.mkdir(parents=True)
    joblib.dump(pipeline.named_steps["estimator"], folder / PEER_FILE)
    version = folder / "version"
    version.mkdir()
    save_pipeline(pipeline, version, model.head)
    form = onnx_form.to_onnx(pipeline, model.head, COLUMNS)
    (version / f"{model.head.score}.onnx").write_bytes(form)
    _seal(model, version)
    return pipeline


def _target(model: Model, features: Numbers) -> NDArray[Any]:
    noise = np.random.default_rng(1).normal(size=len(features))
    value = features @ np.linspace(1, -1, FEATURES) + features[:, 0] * features[:, 1] + noise
    if model.head.task == "regression":
        return value
    if model.head.classes:
        return np.digitize(value, np.quantile(value, np.linspace(0, 1, CLASSES + 1)[1:-1]))
    return (value > 2).astype(int)


def _seal(model: Model, version: Path) -> None:
    manifest = Manifest(
        model=model.name,
        signature=Signature(COLUMNS, outputs_of((model.head,), model.answer)),
        heads=(model.head,),
        answer=model.answer,
        drift=DriftPolicy(),
        rollout=RolloutPolicy(),
        lineage=Lineage("bench", "0" * 64, ROWS, ROWS, "", {}, "benchmark", time.time()),
    )
    seal(version, manifest)
    frame = pd.DataFrame(rows(5, seed=2), columns=NAMES)
    answered = load(version).answer({name: frame[name].to_numpy() for name in NAMES})
    example = Example(
        {name: frame[name].tolist() for name in NAMES},
        {name: values.tolist() for name, values in answered.items()},
    )
    (version / EXAMPLE).write_bytes(msgspec.json.encode(example))
    seal(version, manifest)


def expected(model: Model, pipeline: Pipeline, features: Numbers) -> Numbers:
    """Return what the pipeline computes, of shape (rows,) or (rows, scores)."""
    return score(pipeline, model.head, pd.DataFrame(features, columns=NAMES))
