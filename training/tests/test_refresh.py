"""Rows that are made: incremental, whole or not at all, each once, on every kind of database."""

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import assembly
import milling
import numpy as np
import pandas as pd
import pytest
import sqlalchemy
from databases import Server
from sqlalchemy import text

from watchkeeper.contracts.exits import DONE, GIVE_UP, TRY_AGAIN
from watchkeeper.training import CannotTrainError, SourceUnavailableError, database
from watchkeeper.training.models import find
from watchkeeper.training.refresh import main, refresh
from watchkeeper.training.source import read_history

MODEL = find("warranty-risk")
SECONDS = 60.0


@pytest.fixture
def url(database_url: str) -> str:
    """A line on each kind of database in turn; it has not built anything yet."""
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


def test_features_are_what_pandas_makes_of_the_tables(url: str) -> None:
    tables = assembly.built(200)
    assembly.append(url, tables)
    assert refresh(url, MODEL) == 200
    made = assembly.features(url)
    expected = assembly.recomputed(tables["stations"], tables["vendors"])
    assert list(made.index) == list(expected.index)
    for name in assembly.MEASURED:
        assert made[name].to_numpy(float) == pytest.approx(expected[name].to_numpy(float), 1e-12)
    history = read_history(url, MODEL)
    assert history.columns["total_error_count"].dtype == np.int64
    assert history.target.tolist() == tables["vehicles"]["warranty_claim"].tolist()


def test_only_what_is_new_is_read_and_what_comes_late_changes_nothing(url: str) -> None:
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


def test_a_vehicle_waits_until_it_is_built_and_a_station_has_seen_it(url: str) -> None:
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
    together = threading.Barrier(4)

    def run(_: int) -> int:
        together.wait(SECONDS)
        return refresh(url, MODEL)

    with ThreadPoolExecutor(4) as threads:
        added = list(threads.map(run, range(4), timeout=SECONDS))
    assert sum(added) == 300
    assert list(assembly.features(url).index) == list(range(1, 301))


def test_whoever_writes_is_not_held_up(server: Server) -> None:
    """Rows that the statement has read can be changed before its transaction ends.

    SQLite is left out: it has one writer at a time.
    """
    url = server.create()
    assembly.create(url)
    assembly.append(url, assembly.built(20))
    assert refresh(url, MODEL) == 20
    assembly.append(url, assembly.built(20, first=21))
    refresh_of = MODEL.source.refresh
    assert refresh_of is not None
    engine = sqlalchemy.create_engine(url, isolation_level="READ COMMITTED")
    with engine.connect() as running, running.begin():
        running.execute(text(refresh_of.statement))
        limit = "SET lock_timeout = '5s'" if "postgres" in url else "SET lock_wait_timeout = 5"
        assembly.change(url, limit, "UPDATE stations SET errors = 0 WHERE vehicle_id = 25")
        assembly.append(url, assembly.built(1, first=41))
    engine.dispose()
    assert refresh(url, MODEL) == 1


def test_the_statement_looks_up_stations_and_vendors_by_vehicle(sqlite: str) -> None:
    assembly.append(sqlite, assembly.built(50))
    refresh(sqlite, MODEL)
    how = MODEL.source.refresh
    assert how is not None
    connection = sqlite3.connect(sqlite.removeprefix("sqlite:///"))
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {how.statement}")]
    connection.close()
    assert not [step for step in plan if step.startswith(("SCAN stations", "SCAN vendors"))], plan


def test_a_run_that_is_killed_leaves_all_or_nothing(sqlite: str) -> None:
    assembly.append(sqlite, assembly.built(50))
    path = sqlite.removeprefix("sqlite:///")
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")  # the run comes as far as this lock
    command = [sys.executable, "-m", "watchkeeper.training.refresh", "warranty-risk"]
    settings = {**os.environ, "WATCHKEEPER_SOURCE_URL": sqlite}
    victim = subprocess.Popen(command, env=settings, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + SECONDS
    while path not in _open_files(victim.pid):
        assert victim.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    victim.wait(SECONDS)
    writer.execute("ROLLBACK")
    writer.close()
    done = subprocess.run(
        command, env=settings, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == DONE, done.stderr
    assert "50 rows added to vehicle_features" in done.stderr
    assert len(assembly.features(sqlite)) == 50


def _open_files(pid: int) -> set[str]:
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(os.readlink(link))
        except FileNotFoundError:
            continue
    return found


def test_one_process_refreshes_as_often_as_it_is_told(sqlite: str) -> None:
    assembly.append(sqlite, assembly.built(5))
    command = [sys.executable, "-m", "watchkeeper.training.refresh", "warranty-risk", "--each-line"]
    settings = {**os.environ, "WATCHKEEPER_SOURCE_URL": sqlite}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=settings, text=True, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for first, answer in ((None, "5\n"), (None, "0\n"), (6, "7\n")):
            if first is not None:
                assembly.append(sqlite, assembly.built(7, first=first))
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == answer
        process.stdin.close()
        assert process.wait(SECONDS) == DONE


def test_a_model_without_a_refresh_has_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO)
    url = milling.database(tmp_path / "mill.db", milling.pieces(5))
    monkeypatch.setenv("WATCHKEEPER_SOURCE_URL", url)
    assert main(["ai4i-failure"]) == DONE
    assert "nothing to refresh" in caplog.text


def test_a_missing_table_is_told_and_is_no_reason_to_try_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    assembly.change(url, "DROP TABLE vendors")
    monkeypatch.setenv("WATCHKEEPER_SOURCE_URL", url)
    assert main(["warranty-risk"]) == GIVE_UP
    assert "cannot refresh the rows of warranty-risk" in caplog.text
    assert "vendors" in caplog.text


def test_a_column_that_is_missing_is_no_reason_to_try_again(url: str) -> None:
    assembly.change(url, "ALTER TABLE vendors DROP COLUMN defects")
    with pytest.raises(CannotTrainError, match="defects"):
        refresh(url, MODEL)


@pytest.mark.parametrize(
    "away",
    ["postgresql+psycopg://nobody:hush@127.0.0.1:9/x", "mysql+pymysql://no:hush@127.0.0.1:9/x"],
)
def test_a_database_that_does_not_answer_is_a_reason_to_try_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, away: str
) -> None:
    monkeypatch.setenv("WATCHKEEPER_SOURCE_URL", away)
    assert main(["warranty-risk"]) == TRY_AGAIN
    assert "127.0.0.1:9" in caplog.text
    assert "hush" not in caplog.text
    with pytest.raises(SourceUnavailableError):
        read_history(away, MODEL)


def test_a_database_that_freezes_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    url = server.create()
    monkeypatch.setattr(database, "ANSWER_SECONDS", 2)

    def ask_while_it_freezes() -> None:
        with database.transaction(url, "test") as connection:
            connection.execute(text("SELECT 1"))
            server.freeze()
            try:
                connection.execute(text("SELECT 1"))
            finally:
                server.thaw()

    with pytest.raises(SourceUnavailableError, match="cannot test"):
        ask_while_it_freezes()


@pytest.mark.parametrize("wrong", ["nonsense", "sqlite:///{place}/typo.db", "oracle+x://h/d"])
def test_a_url_that_cannot_be_meant_is_no_reason_to_try_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: str
) -> None:
    monkeypatch.setenv("WATCHKEEPER_SOURCE_URL", wrong.format(place=tmp_path))
    assert main(["warranty-risk"]) == GIVE_UP
    assert not (tmp_path / "typo.db").exists()
    monkeypatch.delenv("WATCHKEEPER_SOURCE_URL")
    assert main(["warranty-risk"]) == GIVE_UP
    assert main(["no-such-model"]) == GIVE_UP
