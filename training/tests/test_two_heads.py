"""A model with two heads and numbers only is a declaration, and nothing but that."""

from pathlib import Path
from typing import Any

import milling
import msgspec
import numpy as np
import onnxruntime
import pytest
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.preprocessing import StandardScaler

from watchkeeper.contracts.answer import AnswerPolicy, Label, Risk
from watchkeeper.contracts.names import CANDIDATE, model_uri
from watchkeeper.contracts.signature import Column
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import history as events
from watchkeeper.pipeline import load
from watchkeeper.registry import Registry
from watchkeeper.training.declaration import Balance, Gate, Head, Model, Parameters, Source
from watchkeeper.training.run import Order, train

TWO_HEADS = Model(
    name="mill-risk",
    source=Source("SELECT * FROM machine_readings", id="id"),
    columns=(
        Column("torque", "FP64", unit="Nm", minimum=0.0),
        Column("rotational_speed", "FP64", unit="rpm"),
        Column("tool_wear", "INT64", unit="min"),
    ),
    target=milling.TARGET,
    heads=(
        Head(
            "failure_probability",
            features=lambda _: StandardScaler(),
            estimator=lambda p: RandomForestClassifier(20, max_depth=8, random_state=p.seed),
        ),
        Head(
            "anomaly",
            features=lambda _: StandardScaler(),
            estimator=lambda p: IsolationForest(n_estimators=20, random_state=p.seed),
            method="decision_function",
            supervised=False,
            tolerance=1e-5,
        ),
    ),
    gate=Gate("failure_probability", floors={"roc_auc": 0.7}),
    answer=AnswerPolicy(
        labels=(Label("anomaly_flag", "anomaly", threshold=0.0),),
        risk=Risk("failure_probability", medium=0.199, high=0.599),
    ),
    balance=Balance(ratio=0.2),
)


def test_two_heads_are_trained_and_versioned_together(
    registry: Registry, ledger: Ledger, history: str, tmp_path: Path
) -> None:
    order = Order(TWO_HEADS, "both", "a test", Parameters())
    version = train(order, history, registry, ledger)
    registry.download(model_uri("mill-risk", version.version), tmp_path / "got")
    model = load(tmp_path / "got")
    assert model.manifest.scores == ("failure_probability", "anomaly")
    table = milling.pieces(1000, seed=3)
    columns = {name: table[name].to_numpy() for name in TWO_HEADS.names}
    columns["tool_wear"] = columns["tool_wear"].astype(np.int64)
    answered = model.answer(columns)
    assert set(answered["anomaly_flag"].tolist()) == {0, 1}
    for head in model.manifest.heads:
        assert head.onnx is not None
        session = onnxruntime.InferenceSession(tmp_path / "got" / head.onnx)
        inputs = {name: values.reshape(-1, 1) for name, values in columns.items()}
        (scores,) = session.run([head.score], inputs)
        assert scores.shape == (1000,)
        assert scores == pytest.approx(answered[head.score], abs=1e-5)


def test_models_in_one_registry_do_not_disturb_each_other(
    registry: Registry, ledger: Ledger, history: str
) -> None:
    """Not even when their runs have the same name."""
    small = msgspec.structs.replace(TWO_HEADS, parameters=Parameters)
    one, two = (msgspec.structs.replace(small, name=name) for name in ("mill-one", "mill-two"))
    for model in (one, two, one, two):
        train(Order(model, "same", "a test", Parameters(onnx="off")), history, registry, ledger)
    again = Order(two, "another", "a test", Parameters(onnx="off", seed=1))
    train(again, history, registry, ledger)
    assert [version.version for version in registry.versions("mill-one")] == [1]
    assert [version.version for version in registry.versions("mill-two")] == [1, 2]
    assert registry.aliases("mill-one") == {CANDIDATE: 1}
    assert registry.aliases("mill-two") == {CANDIDATE: 2}
    assert [event.version for event in events(ledger, "mill-one")] == [1]
    assert [event.version for event in events(ledger, "mill-two")] == [1, 2]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"answer": msgspec.structs.replace(TWO_HEADS.answer, hidden=("oddity",))}, "oddity"),
        ({"gate": msgspec.structs.replace(TWO_HEADS.gate, most={"odd": 0.1})}, "no label"),
        ({"gate": Gate("failure", floors={})}, "no head makes the scores"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(wrong: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        msgspec.structs.replace(TWO_HEADS, **wrong)


def test_what_counts_as_positive_is_the_scores_own_label_or_high_risk() -> None:
    assert TWO_HEADS.threshold == 0.599
    own = (Label("failure", "failure_probability", threshold=0.3), *TWO_HEADS.answer.labels)
    labelled = msgspec.structs.replace(TWO_HEADS.answer, labels=own)
    assert msgspec.structs.replace(TWO_HEADS, answer=labelled).threshold == 0.3
    elsewhere = msgspec.structs.replace(TWO_HEADS.answer, risk=Risk("anomaly", 0.1, 0.2))
    assert msgspec.structs.replace(TWO_HEADS, answer=elsewhere).threshold == 0.5
