"""The model: a probability of a claim and an anomaly score, trained and versioned together."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import assembly
import msgspec
import numpy as np
import onnxruntime
import pyarrow.parquet
import pytest
from version_server import infer, serve

from watchkeeper.core.gate_report import read_report
from watchkeeper.core.names import CANDIDATE, model_uri
from watchkeeper.core.record import Prediction, decode_line
from watchkeeper.core.spool import written_part
from watchkeeper.core.version import read_baseline, read_example
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.pipeline import OfflineModel, load
from watchkeeper.registry import RUN_TAG, RegisteredVersion, Registry
from watchkeeper.training.models import find, parameters_of
from watchkeeper.training.run import TrainingRequest, train

NAME = "warranty-risk"
SAMPLE = (3, 50.2, 3.1, 0.05, 0.1, 98.4, 4.2)


def request(run: str, *given: str) -> TrainingRequest:
    model = find(NAME)
    parameters, chosen = parameters_of(model, list(given))
    return TrainingRequest(model, run, "a test", parameters, frozenset(chosen))


class Line(msgspec.Struct, frozen=True):
    """An assembly line whose first 5,000 vehicles have made a version."""

    url: str
    registry: Registry
    ledger: Ledger
    version: RegisteredVersion
    folder: Path

    @property
    def model(self) -> OfflineModel:
        return load(self.folder)


@pytest.fixture(scope="module")
def line(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    folder = tmp_path_factory.mktemp("line")
    (folder / "plant.db").touch()
    url = f"sqlite:///{folder}/plant.db"
    assembly.create(url)
    assembly.append(url, assembly.built(5000))
    migrate(f"sqlite:///{folder}/ledger.db")
    ledger = Ledger(f"sqlite:///{folder}/ledger.db")
    version = train(request("first"), url, registry, ledger)
    registry.download(model_uri(NAME, version.version), folder / "version")
    yield Line(url, registry, ledger, version, folder / "version")
    ledger.close()


def test_the_trials_of_its_search_are_in_the_report_and_in_mlflow(line: Line) -> None:
    trials = read_report(line.folder).search
    assert len(trials) == 4
    assert any(trial.parameters == {"leaf": 5, "depth": 10} for trial in trials)  # the defaults
    client = line.registry.client
    experiment = client.get_run(line.version.run_id).info.experiment_id
    parent = f"tags.`mlflow.parentRunId` = '{line.version.run_id}'"
    runs = client.search_runs([experiment], parent)
    assert sorted(run.data.params["leaf"] for run in runs) == sorted(
        str(trial.parameters["leaf"]) for trial in trials
    )
    assert (
        "Search for parameters: average_precision"
        in (line.folder / "metrics_report.txt").read_text()
    )


def columns(rows: list[tuple[float, ...]]) -> dict[str, Any]:
    kinds = {"INT64": np.int64, "FP64": np.float64}
    return {
        column.name: np.array(values, dtype=kinds[column.datatype])
        for column, values in zip(find(NAME).columns, zip(*rows, strict=True), strict=True)
    }


def test_a_version_has_both_heads_and_passes_its_gate(line: Line) -> None:
    assert line.registry.aliases(NAME)[CANDIDATE] == line.version.version
    assert line.model.manifest.scores == ("warranty_probability", "normality")
    report = read_report(line.folder)
    assert report.passed, report.reason
    assert report.suspicions == []
    assert report.duplicates["history"].repeated == 0
    assert [check.name for check in report.checks] == [
        "floor roc_auc",
        "floor average_precision",
        "max label rate anomaly_flag",
        "leakage",
    ]
    share = report.answers["history"]["anomaly_flag"]
    assert share.value == pytest.approx(0.02, abs=0.015)
    assert share.low is not None
    assert share.low < share.value
    text = (line.folder / "metrics_report.txt").read_text()
    for words in ("anomaly_flag", "risk_level HIGH", "ONNX       normality", "roc_auc"):
        assert words in text


def test_the_sample_gets_a_probability_a_flag_and_a_level(line: Line) -> None:
    model = line.model
    answered = model.answer(columns([SAMPLE]))
    outputs = [output.name for output in model.manifest.signature.outputs]
    assert outputs == ["warranty_probability", "anomaly_flag", "risk_level"]
    assert 0.0 < answered["warranty_probability"][0] < 0.5
    assert answered["anomaly_flag"].tolist() == [0]
    assert answered["risk_level"][0] in ("LOW", "MEDIUM")


def test_an_anomalous_vehicle_is_flagged(line: Line) -> None:
    anomaly = (12, 49.0, 60.0, 0.5, 0.02, 91.0, 16.0)
    assert line.model.answer(columns([anomaly]))["anomaly_flag"].tolist() == [1]


def test_both_onnx_forms_agree_with_their_pipelines(line: Line) -> None:
    model = line.model
    tables = assembly.built(2000, seed=7)
    features = assembly.recomputed(tables["stations"], tables["vendors"])
    inputs = {name: features[name].to_numpy() for name in assembly.MEASURED}
    expected = model.scores(inputs)
    for head in model.manifest.heads:
        assert head.onnx is not None
        assert head.onnx_difference is not None
        assert head.onnx_difference <= 1e-6
        session = onnxruntime.InferenceSession(line.folder / head.onnx)
        feed = {name: values.reshape(-1, 1) for name, values in inputs.items()}
        (scores,) = session.run([head.score], feed)
        assert np.abs(scores - expected[head.score]).max() <= 1e-6


def test_the_hidden_score_has_an_example_a_baseline_and_a_reference(line: Line) -> None:
    """The watch and the rollout compare every score, also those that no client sees."""
    assert "normality" in read_example(line.folder).outputs
    assert "normality" in read_baseline(line.folder)
    table = pyarrow.parquet.read_table(line.folder / "reference.parquet")
    assert {"warranty_probability", "normality"} <= set(table.column_names)


def test_http_and_grpc_answers_equal_offline_predictions(line: Line, tmp_path: Path) -> None:
    table = assembly.built(200, seed=9)
    features = assembly.recomputed(table["stations"], table["vendors"])[assembly.MEASURED]
    rows = {name: [SAMPLE[place], *features[name].tolist()] for place, name in enumerate(features)}
    datatypes = {column.name: column.datatype for column in find(NAME).columns}
    expected = line.model.answer(
        {name: np.array(values, dtype=features[name].dtype) for name, values in rows.items()}
    )
    with serve(NAME, line.folder, tmp_path) as ports:
        answers = infer(ports, NAME, datatypes, rows)
    for answered in (answers["http"], answers["grpc"]):
        assert list(answered) == ["warranty_probability", "anomaly_flag", "risk_level"]
        close = pytest.approx(expected["warranty_probability"].tolist(), abs=1e-6)
        assert answered["warranty_probability"] == close
        assert answered["anomaly_flag"] == expected["anomaly_flag"].tolist()
        assert answered["risk_level"] == expected["risk_level"].tolist()
    segments = sorted((tmp_path / "spool").glob("*.jsonl"))
    spool = [written_part(segment.read_bytes()).splitlines() for segment in segments]
    for record in itertools.chain(*map(decode_line, itertools.chain(*spool))):
        assert isinstance(record, Prediction)
        assert record.outputs["normality"] == pytest.approx(expected["normality"], abs=1e-6)


def test_the_next_version_is_trained_on_new_vehicles_too(line: Line, tmp_path: Path) -> None:
    assembly.append(line.url, assembly.built(500, first=5001, seed=2))
    again = train(request("second", "search=off"), line.url, line.registry, line.ledger)
    assert train(request("second"), line.url, line.registry, line.ledger) == again
    line.registry.download(model_uri(NAME, again.version), tmp_path / "version")
    assert load(tmp_path / "version").manifest.lineage.rows == 5500
    runs = [version.tags[RUN_TAG] for version in line.registry.versions(NAME)]
    assert runs.count("second") == 1
