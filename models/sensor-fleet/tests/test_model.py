"""The model: trained on the history of the fleet, with each of its estimators."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sensor_fleet.model import MODEL, FleetParameters, estimator
from sensor_fleet.plant import PLANT, SEED
from sensor_fleet.plant.scenarios import SCENARIOS
from sensor_fleet.plant.simulation import HORIZON, HORIZON_TURNS
from sensor_fleet.plant.store import Store
from sklearn.preprocessing import StandardScaler

from watchkeeper.core.tasks.binary import roc_auc
from watchkeeper.training.declaration import Choice
from watchkeeper.training.export import export
from watchkeeper.training.fit import Fitted, fit, score_head
from watchkeeper.training.history import read_history
from watchkeeper.training.judge import judge
from watchkeeper.training.models import find
from watchkeeper.training.rows import Rows
from watchkeeper.training.split import Parts, split

SAMPLE = Path(__file__).parents[1] / "sample-request.json"
FOREST = FleetParameters(trees=50)
XGBOOST = FleetParameters(estimator="xgboost", trees=50, depth=3)


def history(url: str) -> Rows:
    return read_history(url, MODEL)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = f"sqlite:///{tmp_path_factory.mktemp('plant')}/plant.db"
    PLANT.seed(found)
    return found


@pytest.fixture(scope="module")
def parts(url: str) -> Parts:
    rows = history(url)
    return split(rows, rows.where(np.zeros(len(rows), bool)), MODEL)


@pytest.fixture(scope="module", params=[FOREST, XGBOOST], ids=["forest", "xgboost"])
def fitted(request: pytest.FixtureRequest, parts: Parts) -> tuple[FleetParameters, Fitted]:
    """The model, fitted on the history of the fleet with each estimator."""
    return request.param, fit(MODEL, request.param, parts)


def test_the_declaration_is_found_by_its_entry_point() -> None:
    assert find("sensor-fleet") is MODEL
    assert PLANT.model == MODEL.name
    assert PLANT.columns == tuple((column.name, column.datatype) for column in MODEL.columns)
    assert all(column.unit for column in MODEL.columns if not column.categories)


def test_it_passes_its_gate_on_the_history(fitted: tuple[FleetParameters, Fitted]) -> None:
    report = judge(MODEL, fitted[1], None, [], must_improve=False, seed=0, duplicates={})
    assert report.passed, report.reason
    assert report.suspicions == []
    share = report.answers["history"]["failure_expected"].value
    assert share is not None
    assert 0.1 < share < 0.3


def test_its_onnx_form_agrees_with_the_library(fitted: tuple[FleetParameters, Fitted]) -> None:
    (head,) = export(MODEL, *fitted).heads
    assert head.onnx is not None
    assert head.onnx_difference is not None
    assert head.onnx_difference <= 1e-6


def test_numbers_are_normalised_inside_of_the_pipeline(
    fitted: tuple[FleetParameters, Fitted], parts: Parts
) -> None:
    pipeline = fitted[1].pipelines["failure_probability"]
    assert isinstance(
        pipeline.named_steps["features"].named_transformers_["numbers"], StandardScaler
    )
    values = pipeline.named_steps["features"].transform(parts.train.columns)[:, :8]
    assert values.mean(axis=0) == pytest.approx(0.0, abs=1e-9)
    assert values.std(axis=0) == pytest.approx(1.0, abs=1e-9)


def test_a_larger_weight_of_failures_expects_more_of_them(parts: Parts) -> None:
    head = MODEL.main_head
    for parameters in (FOREST, XGBOOST):
        means = []
        for weight in (1.0, 10.0):
            changed = msgspec.structs.replace(parameters, failure_weight=weight, trees=20)
            pipeline = fit(MODEL, changed, parts).pipelines[head.score]
            means.append(score_head(head, pipeline, parts.held)[head.score].mean())
        assert means[1] > means[0] + 0.1, parameters.estimator


def test_no_machine_is_on_both_sides_of_the_split(url: str) -> None:
    rows = history(url)
    newer = rows.key > np.quantile(rows.key, 0.7)
    recent = rows.where(newer)
    recent = msgspec.structs.replace(recent, key=np.array([f"p{key}" for key in recent.key]))
    parts = split(rows.where(~newer), recent, MODEL)
    known = {*parts.train.group, *parts.recent_train.group}
    unknown = {*parts.held.group, *parts.unseen.group}
    assert known
    assert unknown
    assert not known & unknown
    assert parts.held.key.max() < rows.key[newer].min()  # predictions are newer than the history


def test_the_last_day_is_left_out_because_only_its_failures_are_known(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/plant.db"
    with Store(url) as store:
        store.seed(SEED, machines=12, turns=60)
        assert history(url).key.tolist() == list(range(1, store.labelled() + 1))
    assert HORIZON * 3600 == 86400


def test_the_drift_of_the_demo_makes_it_worthless(
    fitted: tuple[FleetParameters, Fitted], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/plant.db"
    with Store(url) as store:
        store.seed(SEED, machines=120, turns=1)
        for _ in range(30 + HORIZON_TURNS):
            store.advance(3, SCENARIOS[PLANT.drift])
    changed = history(url)
    changed = changed.where(changed.key > 120)
    head = MODEL.main_head
    scores = score_head(head, fitted[1].pipelines[head.score], changed)
    after = roc_auc(changed.target, scores[head.score])
    assert after.high is not None
    assert after.high < 0.6


def test_the_forest_needs_no_xgboost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xgboost", None)  # as if it were not installed
    assert type(estimator(FOREST)).__name__ == "RandomForestClassifier"
    with pytest.raises(ImportError):
        estimator(XGBOOST)


def test_without_xgboost_only_forests_are_searched() -> None:
    code = (
        "import importlib.util as u, sys; real = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'xgboost' else real(name, *more)\n"
        "from sensor_fleet.model import MODEL\n"
        "print(sorted(MODEL.search.space), 'xgboost' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['depth', 'leaf'] False"
    assert MODEL.search.space["estimator"] == Choice("forest", "xgboost")


def test_the_slow_parameters_of_the_plant_are_known() -> None:
    given = dict(text.split("=") for text in PLANT.slow)
    assert msgspec.convert(given, MODEL.parameters, strict=False) != FleetParameters()


def test_the_sample_request_has_the_models_columns() -> None:
    inputs = json.loads(SAMPLE.read_text())["inputs"]
    assert {x["name"]: x["datatype"] for x in inputs} == {
        column.name: column.datatype for column in MODEL.columns
    }
