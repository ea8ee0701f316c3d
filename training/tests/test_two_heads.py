"""A model with two heads and numeric columns only needs nothing but a declaration."""

from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pumps
import pytest
from pump_risk import MODEL as TWO_HEADS

from watchkeeper.core.names import CANDIDATE, model_uri
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import history as events
from watchkeeper.pipeline import load
from watchkeeper.registry import Registry
from watchkeeper.training.declaration import Parameters
from watchkeeper.training.run import TrainingRequest, train


def test_two_heads_are_trained_and_versioned_together(
    registry: Registry, ledger: Ledger, history: str, tmp_path: Path
) -> None:
    request = TrainingRequest(TWO_HEADS, "both", "a test", Parameters())
    version = train(request, history, registry, ledger)
    registry.download(model_uri("pump-risk", version.version), tmp_path / "got")
    model = load(tmp_path / "got")
    assert model.manifest.scores == ("failure_probability", "anomaly")
    assert model.manifest.main_head.score == "failure_probability"
    table = pumps.readings(1000, seed=3)
    columns = {name: table[name].to_numpy() for name in TWO_HEADS.names}
    columns["wear"] = columns["wear"].astype(np.int64)
    answered = model.answer(columns)
    assert set(answered["anomaly_flag"].tolist()) == {0, 1}
    for head in model.manifest.heads:
        assert head.onnx is not None
        session = onnxruntime.InferenceSession(tmp_path / "got" / head.onnx)
        inputs = {name: values.reshape(-1, 1) for name, values in columns.items()}
        (scores,) = session.run([head.score], inputs)
        assert scores.shape == (1000,)
        assert scores == pytest.approx(answered[head.score], abs=1e-5)


def test_models_in_one_registry_are_independent_also_with_equal_run_names(
    registry: Registry, ledger: Ledger, history: str
) -> None:
    one, two = (msgspec.structs.replace(TWO_HEADS, name=name) for name in ("pump-one", "pump-two"))
    fast = Parameters(onnx="off")
    for model in (one, two, one, two):
        train(TrainingRequest(model, "same", "a test", fast), history, registry, ledger)
    again = TrainingRequest(two, "another", "a test", Parameters(onnx="off", seed=1))
    train(again, history, registry, ledger)
    assert [version.version for version in registry.versions("pump-one")] == [1]
    assert [version.version for version in registry.versions("pump-two")] == [1, 2]
    assert registry.aliases("pump-one") == {CANDIDATE: 1}
    assert registry.aliases("pump-two") == {CANDIDATE: 2}
    assert [event.version for event in events(ledger, "pump-one")] == [1]
    assert [event.version for event in events(ledger, "pump-two")] == [1, 2]
