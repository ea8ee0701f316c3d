"""A training run stores the table of exactly the rows that it has read, once for each content."""

import os
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pumps
import pyarrow.parquet as pq
import pytest
from bearing import HEALTH
from pump_failure import MODEL

from watchkeeper.core.exit_codes import EXIT_FATAL, EXIT_RETRY, EXIT_SUCCESS
from watchkeeper.core.names import PRODUCTION, model_uri
from watchkeeper.core.signature import Column
from watchkeeper.core.snapshot import Snapshot
from watchkeeper.core.version import read_manifest
from watchkeeper.ledger import Ledger
from watchkeeper.registry import Registry
from watchkeeper.registry.snapshots import SnapshotSettings, SnapshotStore, path_of
from watchkeeper.training.__main__ import main
from watchkeeper.training.declaration import Split
from watchkeeper.training.models import parameters_of
from watchkeeper.training.rows import Rows
from watchkeeper.training.run import TrainingRequest, train
from watchkeeper.training.snapshot import FILE, GROUP, KEY, PART, write_rows

NAME = "pumps-stored"
FAST = ["trees=10", "search=off", "onnx=off"]


def request(run: str) -> TrainingRequest:
    model = msgspec.structs.replace(MODEL, name=NAME)
    parameters, chosen = parameters_of(model, FAST)
    return TrainingRequest(model, run, "a test", parameters, frozenset(chosen))


def test_the_snapshot_has_the_rows_of_the_run_and_equal_rows_are_stored_once(
    registry: Registry, ledger: Ledger, tmp_path: Path
) -> None:
    table = pumps.readings(3000)
    source = pumps.database(tmp_path / "source.db", table, "pump_readings")
    store = SnapshotStore(SnapshotSettings(f"file://{tmp_path}/tables"))

    def snapshot_of(version: int) -> Snapshot:
        folder = tmp_path / f"version-{version}"
        registry.download(model_uri(NAME, version), folder)
        found = read_manifest(folder).lineage.snapshot
        assert found is not None
        return found

    first = train(request("one"), source, registry, ledger, store)
    stored = snapshot_of(first.version)
    again = train(request("two"), source, registry, ledger, store)
    assert snapshot_of(again.version) == stored
    assert len([p for p in (tmp_path / "tables").rglob("*") if p.is_file()]) == 1

    store.get(stored, tmp_path / "restored.parquet")
    restored = pq.read_table(tmp_path / "restored.parquet").to_pandas()
    assert set(restored[PART]) == {"history"}
    assert restored[KEY].tolist() == [str(number) for number in table["id"]]
    for name in MODEL.names:
        pd.testing.assert_series_equal(restored[name], table[name], check_dtype=False)
    assert restored["failed"].tolist() == table["failed"].tolist()
    shown = {file.path for file in registry.client.list_artifacts(first.run_id)}
    assert f"{FILE}.dvc" in shown

    # The next run also reads what the ledger has.
    registry.set_alias(NAME, PRODUCTION, again.version)
    recent = pumps.readings(200, seed=5)
    pumps.store_predictions(ledger, NAME, recent, version=2, since=1000.0, labelled=150)
    third = train(request("three"), source, registry, ledger, store)
    store.get(snapshot_of(third.version), tmp_path / "third.parquet")
    rows = pq.read_table(tmp_path / "third.parquet").to_pandas()
    assert rows[PART].value_counts().to_dict() == {"history": 3000, "recent": 200}
    new = rows[rows[PART] == "recent"].reset_index(drop=True)
    pd.testing.assert_series_equal(new["load"], recent["load"], check_dtype=False)
    assert new["failed"].notna().sum() == 150


def test_missing_values_unknown_truths_and_what_identifies_a_prediction_are_null(
    tmp_path: Path,
) -> None:
    model = msgspec.structs.replace(
        MODEL,
        columns=(
            Column("load", "FP64", nullable=True),
            Column("grade", "BYTES", categories=("L", "M"), nullable=True),
            Column("wear", "INT64"),
        ),
        split=Split(group="pump"),
        balance=None,
    )
    rows = Rows(
        pd.DataFrame({"load": [1.5, np.nan], "grade": ["", "M"], "wear": [3, 2**53 + 1]}),
        np.array([np.nan, 1.0]),
        np.array([7, 8]),
        np.array(["a", "b"]),
        np.ones((2, 3), dtype=bool),
    )
    write_rows(tmp_path / "rows.parquet", model, rows, rows.take(np.array([1])))
    assert pq.read_table(tmp_path / "rows.parquet").to_pydict() == {
        KEY: ["7", "8", None],
        PART: ["history", "history", "recent"],
        GROUP: ["a", "b", None],
        "load": [1.5, None, None],
        "grade": [None, "M", "M"],
        "wear": [3, 2**53 + 1, 2**53 + 1],
        "failed": [None, 1.0, 1.0],
    }


def test_each_datatype_and_each_truth_is_read_back(tmp_path: Path) -> None:
    kinds = {"a": "FP64", "b": "FP32", "c": "INT64", "d": "INT32", "e": "BOOL", "f": "TIMESTAMP"}
    model = msgspec.structs.replace(
        HEALTH, columns=tuple(Column(name, kind) for name, kind in kinds.items())
    )
    columns = {"a": [0.1], "b": [0.5], "c": [2**53 + 1], "d": [-7], "e": [1], "f": [1.75e9]}
    rows = Rows(
        pd.DataFrame(columns),
        np.array([2.0]),
        np.array([7]),
        np.array([""]),
        np.ones((1, 6), dtype=bool),
        {"life": np.array([41.5])},
    )
    write_rows(tmp_path / "rows.parquet", model, rows, rows.take(np.arange(0)))
    found = pq.read_table(tmp_path / "rows.parquet").to_pydict()
    assert found == {KEY: ["7"], PART: ["history"], **columns, "state": [2.0], "life": [41.5]}


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, registry: Registry, ledger: Ledger, history: str
) -> list[str]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.client.tracking_uri)
    monkeypatch.setenv("WATCHKEEPER_SOURCE_URL", history)
    monkeypatch.setenv("WATCHKEEPER_LEDGER_URL", str(ledger.engine.url))
    given = [word for parameter in FAST for word in ("--set", parameter)]
    return ["pump-failure", "--run", "stored", "--trigger", "a test", *given]


def test_a_run_without_its_store_registers_nothing_and_says_whether_to_try_again(
    command: list[str],
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").touch()
    versions = len(registry.versions("pump-failure"))
    monkeypatch.setenv("WATCHKEEPER_SNAPSHOTS_URL", "/not/a/url")
    assert main(command) == EXIT_FATAL
    assert "WATCHKEEPER_SNAPSHOTS_URL='/not/a/url': must begin with file://" in caplog.text
    monkeypatch.setenv("WATCHKEEPER_SNAPSHOTS_URL", "s3://tables")
    monkeypatch.setenv("WATCHKEEPER_SNAPSHOTS_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("WATCHKEEPER_SNAPSHOTS_ACCESS_KEY", "key")
    monkeypatch.setenv("WATCHKEEPER_SNAPSHOTS_SECRET_KEY", "secret")
    assert main(command) == EXIT_RETRY
    monkeypatch.setenv("WATCHKEEPER_SNAPSHOTS_URL", f"file://{tmp_path}/file/tables")
    assert main(command) == EXIT_FATAL
    assert len(registry.versions("pump-failure")) == versions


def test_a_run_stores_its_rows_where_the_environment_says(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry
) -> None:
    url = (tmp_path / "tables").as_uri()
    monkeypatch.setenv("WATCHKEEPER_SNAPSHOTS_URL", url)
    assert main(command) == EXIT_SUCCESS
    newest = registry.versions("pump-failure")[-1]
    registry.download(model_uri("pump-failure", newest.version), tmp_path / "version")
    snapshot = read_manifest(tmp_path / "version").lineage.snapshot
    assert snapshot is not None
    assert (snapshot.url, snapshot.rows) == (url, 6000)
    assert os.path.getsize(tmp_path / "tables" / path_of(snapshot)) == snapshot.size
