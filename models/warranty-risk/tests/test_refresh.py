"""The model's own refresh: vehicle_features from the plant's tables, on every kind of database."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import assembly
import numpy as np
import pandas as pd
import pytest
import sqlalchemy
from databases import Server
from sqlalchemy import text
from warranty_risk.model import MODEL

from watchkeeper.training.history import read_history
from watchkeeper.training.refresh import refresh

SECONDS = 60.0


@pytest.fixture
def url(database_url: str) -> str:
    """The empty tables of a plant on each kind of database in turn."""
    if database_url.startswith("sqlite"):
        Path(database_url.removeprefix("sqlite:///")).touch()
    assembly.create(database_url)
    return database_url


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    (tmp_path / "plant.db").touch()
    url = f"sqlite:///{tmp_path}/plant.db"
    assembly.create(url)
    return url


def test_features_equal_those_that_pandas_computes(url: str) -> None:
    tables = assembly.built(200)
    assembly.append(url, tables)
    assert refresh(url, MODEL) == 200
    features = assembly.features(url)
    expected = assembly.recomputed(tables["stations"], tables["vendors"])
    assert list(features.index) == list(expected.index)
    for name in assembly.MEASURED:
        assert features[name].to_numpy(float) == pytest.approx(
            expected[name].to_numpy(float), 1e-12
        )
    history = read_history(url, MODEL)
    assert history.columns["total_error_count"].dtype == np.int64
    assert history.target.tolist() == tables["vehicles"]["warranty_claim"].tolist()


def test_new_vehicles_are_added_and_late_reports_change_nothing(url: str) -> None:
    assembly.append(url, assembly.built(30))
    assert refresh(url, MODEL) == 30
    before = assembly.features(url)
    assembly.change(
        url,
        "UPDATE stations SET cycle_time = 1000, errors = 50 WHERE vehicle_id <= 20",
        "DELETE FROM stations WHERE vehicle_id > 20",
    )
    assembly.append(url, assembly.built(10, first=31))
    assert refresh(url, MODEL) == 10
    after = assembly.features(url)
    assert len(after) == 40
    pd.testing.assert_frame_equal(after[:30], before)
    assert refresh(url, MODEL) == 0


def test_a_vehicle_waits_until_it_is_complete_and_a_station_has_reported(url: str) -> None:
    tables = assembly.built(5)
    late = tables["stations"][tables["stations"]["vehicle_id"] == 2]
    tables["stations"] = tables["stations"].drop(late.index)
    tables["vehicles"].loc[0, "completed"] = None
    tables["vendors"] = tables["vendors"][tables["vendors"]["vehicle_id"] != 3]
    assembly.append(url, tables)
    assert refresh(url, MODEL) == 3
    assert list(assembly.features(url).index) == [3, 4, 5]
    assert assembly.features(url)["vendor_defect_ratio"].isna().tolist() == [True, False, False]
    assembly.append(url, {"stations": late})
    assembly.change(url, "UPDATE vehicles SET completed = 1000000001 WHERE id = 1")
    assert refresh(url, MODEL) == 2
    assert list(assembly.features(url).index) == [1, 2, 3, 4, 5]


def test_runs_at_the_same_time_add_each_row_once(url: str) -> None:
    assembly.append(url, assembly.built(300))
    start = threading.Barrier(4)

    def run(_: int) -> int:
        start.wait(SECONDS)
        return refresh(url, MODEL)

    with ThreadPoolExecutor(4) as threads:
        added = list(threads.map(run, range(4), timeout=SECONDS))
    assert sum(added) == 300
    assert list(assembly.features(url).index) == list(range(1, 301))


def test_writers_are_not_blocked(server: Server) -> None:
    """Rows that the statement has read can be changed before its transaction ends.

    Not on SQLite, which has one writer at a time.
    """
    url = server.create()
    assembly.create(url)
    assembly.append(url, assembly.built(20))
    assert refresh(url, MODEL) == 20
    assembly.append(url, assembly.built(20, first=21))
    rule = MODEL.source.refresh
    assert rule is not None
    engine = sqlalchemy.create_engine(url, isolation_level="READ COMMITTED")
    with engine.connect() as running, running.begin():
        running.execute(text(rule.statement))
        limit = "SET lock_timeout = '5s'" if "postgres" in url else "SET lock_wait_timeout = 5"
        assembly.change(url, limit, "UPDATE stations SET errors = 0 WHERE vehicle_id = 25")
        assembly.append(url, assembly.built(1, first=41))
    engine.dispose()
    assert refresh(url, MODEL) == 1


def test_the_statement_uses_the_indexes_by_vehicle(sqlite: str) -> None:
    assembly.append(sqlite, assembly.built(50))
    refresh(sqlite, MODEL)
    rule = MODEL.source.refresh
    assert rule is not None
    connection = sqlite3.connect(sqlite.removeprefix("sqlite:///"))
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {rule.statement}")]
    connection.close()
    assert not [step for step in plan if step.startswith(("SCAN stations", "SCAN vendors"))], plan
