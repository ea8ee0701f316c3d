"""The model that every server serves: a forest of 200 trees of depth 12 with 9 features."""

import time
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np
import pandas as pd
import skops.io
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import Pipeline

from watchkeeper.core.answer import AnswerPolicy, Label, Risk, outputs_of
from watchkeeper.core.head import Head
from watchkeeper.core.policies import DriftPolicy, RolloutPolicy
from watchkeeper.core.signature import Column, Signature
from watchkeeper.core.version import EXAMPLE, Example, Lineage, Manifest, seal
from watchkeeper.pipeline import load
from watchkeeper.training import onnx_form

MODEL = "forest"
VERSION = 1
SCORE = "failure_probability"
TREES, DEPTH, FEATURES, ROWS = 200, 12, 9, 10_000
COLUMNS = tuple(Column(f"feature_{n}", "FP64", "", -100.0, 100.0) for n in range(FEATURES))
NAMES = [column.name for column in COLUMNS]
PEER_FILE = "model.joblib"
HEAD = Head(SCORE, f"{SCORE}.skops", "predict_proba", f"{SCORE}.onnx", 1e-6)


def rows(number: int, seed: int) -> NDArray[np.float64]:
    """Draw rows, of shape (number, 9)."""
    return np.random.default_rng(seed).normal(size=(number, FEATURES)).round(6)


def create(folder: Path, trees: int = TREES) -> Pipeline:
    """Fit the forest and save it twice.

    Args:
        folder: Gets the version in ``version/`` and the file of the peers in ``model.joblib``.
        trees: Number of trees.
    """
    features = rows(ROWS, seed=0)
    noise = np.random.default_rng(1).normal(size=ROWS)
    target = (features @ np.linspace(1, -1, FEATURES) + features[:, 0] * features[:, 1] + noise) > 2
    pipeline = Pipeline(
        [
            ("features", ColumnTransformer([("all", "passthrough", NAMES)])),
            ("estimator", RandomForestClassifier(trees, max_depth=DEPTH, random_state=0)),
        ]
    ).fit(pd.DataFrame(features, columns=NAMES), target.astype(int))
    folder.mkdir(parents=True)
    joblib.dump(pipeline.named_steps["estimator"], folder / PEER_FILE)
    version = folder / "version"
    version.mkdir()
    skops.io.dump(pipeline, version / f"{SCORE}.skops")
    (version / f"{SCORE}.onnx").write_bytes(onnx_form.to_onnx(pipeline, HEAD, COLUMNS))
    _seal(version)
    return pipeline


def _seal(version: Path) -> None:
    policy = AnswerPolicy((Label("failure", SCORE, 0.5),), Risk(SCORE, 0.2, 0.6))
    manifest = Manifest(
        model=MODEL,
        signature=Signature(COLUMNS, outputs_of((HEAD,), policy)),
        heads=(HEAD,),
        answer=policy,
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


def probabilities(pipeline: Any, features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probabilities that the pipeline computes, of shape (rows,)."""
    scores: NDArray[np.float64] = pipeline.predict_proba(pd.DataFrame(features, columns=NAMES))
    return scores[:, 1]
