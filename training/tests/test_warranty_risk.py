"""The second model: two heads on rows that a refresh makes, trained and versioned together."""

import itertools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import assembly
import msgspec
import numpy as np
import onnxruntime
import pyarrow.parquet
import pytest
from served import SERVING, served

from watchkeeper.contracts.names import CANDIDATE, model_uri
from watchkeeper.contracts.record import Prediction, decode_line
from watchkeeper.contracts.spool import written
from watchkeeper.contracts.version import read_baseline, read_example
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.pipeline import OfflineModel, load
from watchkeeper.registry import RUN_TAG, RegisteredVersion, Registry
from watchkeeper.training import judged
from watchkeeper.training.models import find, parameters_of
from watchkeeper.training.run import Order, train

NAME = "warranty-risk"
SAMPLE = (3, 50.2, 3.1, 0.05, 0.1, 98.4, 4.2)


def order(run: str, *given: str) -> Order:
    model = find(NAME)
    parameters, chosen = parameters_of(model, list(given))
    return Order(model, run, "a test", parameters, frozenset(chosen))


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
    place = tmp_path_factory.mktemp("line")
    (place / "plant.db").touch()
    url = f"sqlite:///{place}/plant.db"
    assembly.create(url)
    assembly.append(url, assembly.built(5000))
    migrate(f"sqlite:///{place}/ledger.db")
    ledger = Ledger(f"sqlite:///{place}/ledger.db")
    version = train(order("first"), url, registry, ledger)
    registry.download(model_uri(NAME, version.version), place / "version")
    yield Line(url, registry, ledger, version, place / "version")
    ledger.close()


def columns(rows: list[tuple[float, ...]]) -> dict[str, Any]:
    kinds = {"INT64": np.int64, "FP64": np.float64}
    return {
        column.name: np.array(values, dtype=kinds[column.datatype])
        for column, values in zip(find(NAME).columns, zip(*rows, strict=True), strict=True)
    }


def test_a_version_holds_both_heads_and_passes_its_gate(line: Line) -> None:
    assert line.registry.aliases(NAME)[CANDIDATE] == line.version.version
    assert line.model.manifest.scores == ("warranty_probability", "normality")
    report = judged.read(line.folder)
    assert report.passed, report.reason
    assert [check.name for check in report.checks] == [
        "floor roc_auc",
        "floor average_precision",
        "most anomaly_flag",
    ]
    share = report.answers["history"]["anomaly_flag"]
    assert share.value == pytest.approx(0.02, abs=0.015)
    assert share.low is not None
    assert share.low < share.value
    text = (line.folder / "metrics_report.txt").read_text()
    for said in ("anomaly_flag", "risk_level HIGH", "ONNX       normality", "roc_auc"):
        assert said in text


def test_the_sample_is_answered_with_probability_flag_and_level(line: Line) -> None:
    model = line.model
    answered = model.answer(columns([SAMPLE]))
    outputs = [output.name for output in model.manifest.signature.outputs]
    assert outputs == ["warranty_probability", "anomaly_flag", "risk_level"]
    assert 0.0 < answered["warranty_probability"][0] < 0.5
    assert answered["anomaly_flag"].tolist() == [0]
    assert answered["risk_level"][0] in ("LOW", "MEDIUM")


def test_an_odd_vehicle_is_flagged(line: Line) -> None:
    odd = (12, 49.0, 60.0, 0.5, 0.02, 91.0, 16.0)
    assert line.model.answer(columns([odd]))["anomaly_flag"].tolist() == [1]


def test_both_onnx_forms_answer_as_the_pipelines_do(line: Line) -> None:
    model = line.model
    tables = assembly.built(2000, seed=7)
    made = assembly.recomputed(tables["stations"], tables["vendors"])
    asked = {name: made[name].to_numpy() for name in assembly.MEASURED}
    expected = model.scores(asked)
    for head in model.manifest.heads:
        assert head.onnx is not None
        assert head.onnx_difference is not None
        assert head.onnx_difference <= 1e-6
        session = onnxruntime.InferenceSession(line.folder / head.onnx)
        feed = {name: values.reshape(-1, 1) for name, values in asked.items()}
        (scores,) = session.run([head.score], feed)
        assert np.abs(scores - expected[head.score]).max() <= 1e-6


def test_what_is_not_answered_is_still_recorded_and_watched(line: Line) -> None:
    """The watch and the rollout compare every score, so all of them have a reference."""
    assert "normality" in read_example(line.folder).outputs
    assert "normality" in read_baseline(line.folder)
    table = pyarrow.parquet.read_table(line.folder / "reference.parquet")
    assert {"warranty_probability", "normality"} <= set(table.column_names)


def test_it_is_served_over_http_and_grpc_as_it_answers_offline(line: Line, tmp_path: Path) -> None:
    table = assembly.built(200, seed=9)
    made = assembly.recomputed(table["stations"], table["vendors"])[assembly.MEASURED]
    asked = {name: [SAMPLE[place], *made[name].tolist()] for place, name in enumerate(made)}
    datatypes = {column.name: column.datatype for column in find(NAME).columns}
    expected = line.model.answer(
        {name: np.array(values, dtype=made[name].dtype) for name, values in asked.items()}
    )
    with served(NAME, line.folder, tmp_path) as (http, grpc):
        command = [SERVING, "asking.py", str(http), str(grpc), NAME]
        done = subprocess.run(
            command,
            cwd=Path(__file__).parent,
            input=json.dumps({"datatypes": datatypes, "columns": asked}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    for answered in (answers["http"], answers["grpc"]):
        assert list(answered) == ["warranty_probability", "anomaly_flag", "risk_level"]
        close = pytest.approx(expected["warranty_probability"].tolist(), abs=1e-6)
        assert answered["warranty_probability"] == close
        assert answered["anomaly_flag"] == expected["anomaly_flag"].tolist()
        assert answered["risk_level"] == expected["risk_level"].tolist()
    segments = sorted((tmp_path / "spool").glob("*.jsonl"))
    spool = [written(segment.read_bytes()).splitlines() for segment in segments]
    for record in itertools.chain(*map(decode_line, itertools.chain(*spool))):
        assert isinstance(record, Prediction)
        assert record.outputs["normality"] == pytest.approx(expected["normality"], abs=1e-6)


def test_the_next_version_learns_from_what_was_built_since(line: Line, tmp_path: Path) -> None:
    assembly.append(line.url, assembly.built(500, first=5001, seed=2))
    again = train(order("second", "search=off"), line.url, line.registry, line.ledger)
    assert train(order("second"), line.url, line.registry, line.ledger) == again
    line.registry.download(model_uri(NAME, again.version), tmp_path / "version")
    assert load(tmp_path / "version").manifest.lineage.rows == 5500
    runs = [version.tags[RUN_TAG] for version in line.registry.versions(NAME)]
    assert runs.count("second") == 1
