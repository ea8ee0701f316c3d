"""The model: trained on the simulated plant's history, judged before and after a drift."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from ai4i_failure.model import MODEL, ForestParameters
from ai4i_failure.plant import PLANT
from ai4i_failure.plant.machines import Fleet, Readings
from ai4i_failure.plant.scenarios import SCENARIOS, apply

from watchkeeper.core.tasks.binary import roc_auc
from watchkeeper.training.export import export
from watchkeeper.training.fit import Fitted, fit, score_head
from watchkeeper.training.history import read_history
from watchkeeper.training.judge import judge
from watchkeeper.training.models import find
from watchkeeper.training.rows import Rows
from watchkeeper.training.split import split

PARAMETERS = ForestParameters(trees=50)
SAMPLE = Path(__file__).parents[1] / "sample-request.json"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """The model, fitted on the plant's own history."""
    url = f"sqlite:///{tmp_path_factory.mktemp('plant')}/plant.db"
    PLANT.seed(url)
    history = read_history(url, MODEL)
    parts = split(history, history.where(np.zeros(len(history), bool)), MODEL)
    assert parts.duplicates["history"].repeated == 0
    return fit(MODEL, PARAMETERS, parts)


def as_rows(readings: Readings) -> Rows:
    frame = pd.DataFrame({name: readings[name] for name in MODEL.names})
    target, none = readings[MODEL.target].astype(float), np.full(len(frame), "", dtype=object)
    return Rows(frame, target, np.arange(len(frame)), none, np.ones(frame.shape, dtype=bool))


def test_the_declaration_is_found_by_its_entry_point() -> None:
    assert find("ai4i-failure") is MODEL
    assert PLANT.model == MODEL.name
    assert PLANT.columns == tuple((column.name, column.datatype) for column in MODEL.columns)


def test_it_passes_its_gate_on_the_plants_history(fitted: Fitted) -> None:
    report = judge(MODEL, fitted, None, [], must_improve=False, seed=0, duplicates={})
    assert report.passed, report.reason
    assert report.suspicions == []
    share = report.answers["history"]["failure"].value
    assert share is not None
    assert 0.01 < share < 0.06


def test_its_onnx_form_agrees_with_the_pipeline(fitted: Fitted) -> None:
    (head,) = export(MODEL, PARAMETERS, fitted).heads
    assert head.onnx is not None
    assert head.onnx_difference is not None
    assert head.onnx_difference <= 1e-6


def test_the_drift_of_the_demo_makes_it_worthless(fitted: Fitted) -> None:
    changed = as_rows(apply(Fleet(seed=9).readings(4000), SCENARIOS[PLANT.drift]))
    head = MODEL.main_head
    scores = score_head(head, fitted.pipelines[head.score], changed)
    after = roc_auc(changed.target, scores[head.score])
    assert after.high is not None
    assert after.high < MODEL.gate.floors["roc_auc"]


def test_the_slow_parameters_of_the_plant_are_known() -> None:
    given = dict(text.split("=") for text in PLANT.slow)
    assert msgspec.convert(given, MODEL.parameters, strict=False) != ForestParameters()


def test_the_sample_request_has_the_models_columns() -> None:
    inputs = json.loads(SAMPLE.read_text())["inputs"]
    assert {x["name"]: x["datatype"] for x in inputs} == {
        column.name: column.datatype for column in MODEL.columns
    }
