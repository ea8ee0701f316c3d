"""Loading and applying a version's pipelines."""

from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from watchkeeper.core.answer import AnswerPolicy, Label, Risk, outputs_of
from watchkeeper.core.head import Head
from watchkeeper.core.policies import DriftPolicy, RolloutPolicy
from watchkeeper.core.signature import Column, Signature
from watchkeeper.core.version import BrokenVersionError, Lineage, Manifest, seal
from watchkeeper.pipeline import OfflineModel, load, score
from watchkeeper.pipeline.frameworks.sklearn import load_skops

COLUMNS = (Column("flow", "FP64", unit="l/min"), Column("vibration", "FP64", unit="mm/s"))
PROBABILITY = Head("probability", "probability.skops", "predict_proba")
ANOMALY = Head("anomaly", "anomaly.skops", "decision_function")
POLICY = AnswerPolicy(
    labels=(Label("failure", "probability"), Label("flag", "anomaly", 0.0, "below")),
    risk=Risk("probability", medium=0.2, high=0.6),
    hidden=("anomaly",),
)


def rows(count: int, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame({c.name: random.normal(size=count) for c in COLUMNS})


def fitted() -> dict[str, Pipeline]:
    frame = rows(300)
    target = (frame["flow"] > 0.5).astype(int)
    estimators: dict[str, Any] = {
        "probability": RandomForestClassifier(10, random_state=0),
        "anomaly": IsolationForest(n_estimators=10, random_state=0),
    }
    return {
        name: Pipeline([("features", StandardScaler()), ("estimator", estimator)]).fit(
            frame, target
        )
        for name, estimator in estimators.items()
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sealed version with two heads."""
    for name, pipeline in fitted().items():
        skops.io.dump(pipeline, tmp_path / f"{name}.skops")
    return sealed(tmp_path)


def sealed(folder: Path) -> Path:
    heads = (PROBABILITY, ANOMALY)
    signature = Signature(COLUMNS, outputs_of(heads, POLICY))
    lineage = Lineage("run", "0" * 64, 300, 0, "1", {}, "a test", 1.0)
    policies = DriftPolicy(), RolloutPolicy()
    seal(folder, Manifest("pump-failure", signature, heads, POLICY, *policies, lineage))
    return folder


def columns(frame: pd.DataFrame) -> dict[str, Any]:
    return {name: frame[name].to_numpy() for name in frame}


def test_a_loaded_version_scores_as_its_pipelines_did(folder: Path) -> None:
    pipelines, frame = fitted(), rows(50, seed=1)
    scores = load(folder).scores(columns(frame))
    assert list(scores) == ["probability", "anomaly"]
    probability = pipelines["probability"].predict_proba(frame)[:, 1]
    assert scores["probability"].tolist() == probability.tolist()
    anomaly = pipelines["anomaly"].decision_function(frame)
    assert scores["anomaly"].tolist() == anomaly.tolist()


def test_columns_are_selected_by_name_in_the_order_of_the_signature(folder: Path) -> None:
    model, frame = load(folder), rows(20, seed=2)
    reordered = {name: frame[name].to_numpy() for name in reversed(list(frame))}
    expected = model.scores(columns(frame))["probability"]
    more = {"comment": np.zeros(20), **reordered}
    assert model.scores(more)["probability"].tolist() == expected.tolist()


def test_an_answer_has_labels_risk_level_and_hidden_scores(folder: Path) -> None:
    model, frame = load(folder), rows(50, seed=3)
    answered = model.answer(columns(frame))
    assert set(answered) == {"probability", "anomaly", "failure", "flag", "risk_level"}
    assert answered["failure"].tolist() == (answered["probability"] >= 0.5).astype(int).tolist()
    assert answered["flag"].tolist() == (answered["anomaly"] < 0.0).astype(int).tolist()


def test_another_policy_changes_the_answer_and_not_the_scores(folder: Path) -> None:
    model, frame = load(folder), columns(rows(50, seed=3))
    always = msgspec.structs.replace(POLICY, labels=(Label("failure", "probability", 0.0),))
    answered = model.answer(frame, always)
    assert set(answered["failure"].tolist()) == {1}
    assert answered["probability"].tolist() == model.answer(frame)["probability"].tolist()


@pytest.mark.parametrize("method", ["predict_proba", "predict"])
def test_a_score_is_one_number_per_row(method: Any) -> None:
    head = msgspec.structs.replace(PROBABILITY, method=method)
    found = score(fitted()["probability"], head, rows(7))
    assert found.shape == (7,)
    assert found.dtype == np.float64


def test_an_altered_file_is_not_loaded(folder: Path) -> None:
    other = Pipeline([("features", StandardScaler()), ("estimator", IsolationForest())])
    skops.io.dump(other.fit(rows(30)), folder / "probability.skops")
    with pytest.raises(BrokenVersionError, match="SHA-256"):
        load(folder)


def test_a_missing_file_is_an_error(folder: Path) -> None:
    (folder / "anomaly.skops").unlink()
    message = r"anomaly\.skops: the file is in the manifest, but missing"
    with pytest.raises(BrokenVersionError, match=message):
        load(folder)


class Dangerous:
    """Records that it was constructed."""

    constructed = 0

    def __setstate__(self, state: Any) -> None:
        Dangerous.constructed += 1


def test_an_untrusted_type_is_refused_and_never_constructed(folder: Path) -> None:
    step = FunctionTransformer(kw_args={"anything": Dangerous()})
    skops.io.dump(Pipeline([("features", step)]), folder / "probability.skops")
    sealed(folder)
    with pytest.raises(BrokenVersionError, match=r"not trusted: \['.*Dangerous'\]"):
        load(folder)
    assert Dangerous.constructed == 0


def test_a_function_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "any.skops"
    skops.io.dump(Pipeline([("features", FunctionTransformer(columns))]), path)
    with pytest.raises(BrokenVersionError, match=r"not trusted: \['.*columns'\]"):
        load_skops(path)


def test_a_model_is_made_of_a_manifest_and_its_scorers(folder: Path) -> None:
    loaded = load(folder)
    pipelines = fitted()
    heads = {head.score: head for head in loaded.manifest.heads}
    scorers = {name: partial(score, pipelines[name], head) for name, head in heads.items()}
    again = OfflineModel(loaded.manifest, scorers)
    frame = columns(rows(5))
    assert again.scores(frame)["anomaly"].tolist() == loaded.scores(frame)["anomaly"].tolist()
