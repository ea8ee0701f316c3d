"""Refresh: incremental, all or nothing, each row once, on every kind of database."""

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

import batches
import pumps
import pytest
from databases import Server
from sqlalchemy import text

from watchkeeper.core.exit_codes import EXIT_FATAL, EXIT_RETRY, EXIT_SUCCESS
from watchkeeper.training import CannotTrainError, SourceUnavailableError, database
from watchkeeper.training.history import read_history
from watchkeeper.training.models import find
from watchkeeper.training.refresh import main, refresh

MODEL = find("batch-quality")
SECONDS = 60.0


@pytest.fixture
def url(database_url: str) -> str:
    """Empty tables on each kind of database in turn."""
    if database_url.startswith("sqlite"):
        Path(database_url.removeprefix("sqlite:///")).touch()
    batches.create(database_url)
    return database_url


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    (tmp_path / "source.db").touch()
    url = f"sqlite:///{tmp_path}/source.db"
    batches.create(url)
    return url


def test_runs_at_the_same_time_add_each_row_once(url: str) -> None:
    batches.append(url, 300)
    start = threading.Barrier(4)

    def run(_: int) -> int:
        start.wait(SECONDS)
        return refresh(url, MODEL)

    with ThreadPoolExecutor(4) as threads:
        added = list(threads.map(run, range(4), timeout=SECONDS))
    assert sum(added) == 300
    assert list(batches.features(url).index) == list(range(1, 301))


def test_a_killed_run_adds_all_rows_or_none(sqlite: str) -> None:
    batches.append(sqlite, 50)
    path = sqlite.removeprefix("sqlite:///")
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")  # the run waits for this lock
    command = [sys.executable, "-m", "watchkeeper.training.refresh", "batch-quality"]
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
    assert done.returncode == EXIT_SUCCESS, done.stderr
    assert "50 rows added to batch_features" in done.stderr
    assert len(batches.features(sqlite)) == 50


def _open_files(pid: int) -> set[str]:
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(os.readlink(link))
        except FileNotFoundError:
            continue
    return found


def test_one_process_refreshes_once_for_each_line(sqlite: str) -> None:
    batches.append(sqlite, 5)
    command = [sys.executable, "-m", "watchkeeper.training.refresh", "batch-quality", "--each-line"]
    settings = {**os.environ, "WATCHKEEPER_SOURCE_URL": sqlite}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=settings, text=True, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for first, answer in ((None, "5\n"), (None, "0\n"), (6, "7\n")):
            if first is not None:
                batches.append(sqlite, 7, first=first)
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == answer
        process.stdin.close()
        assert process.wait(SECONDS) == EXIT_SUCCESS


def test_a_model_without_a_refresh_has_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO)
    url = pumps.database(tmp_path / "pumps.db", pumps.readings(5))
    monkeypatch.setenv("WATCHKEEPER_SOURCE_URL", url)
    assert main(["pump-failure"]) == EXIT_SUCCESS
    assert "declares no refresh" in caplog.text


def test_a_missing_table_cannot_be_refreshed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    batches.execute(url, "DROP TABLE samples")
    monkeypatch.setenv("WATCHKEEPER_SOURCE_URL", url)
    assert main(["batch-quality"]) == EXIT_FATAL
    assert "cannot refresh the rows of batch-quality" in caplog.text
    assert "samples" in caplog.text


def test_a_missing_column_cannot_be_refreshed(url: str) -> None:
    batches.execute(url, "ALTER TABLE samples DROP COLUMN pressure")
    with pytest.raises(CannotTrainError, match="pressure"):
        refresh(url, MODEL)


@pytest.mark.parametrize(
    "away",
    ["postgresql+psycopg://nobody:hush@127.0.0.1:9/x", "mysql+pymysql://no:hush@127.0.0.1:9/x"],
)
def test_an_unreachable_database_can_be_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, away: str
) -> None:
    monkeypatch.setenv("WATCHKEEPER_SOURCE_URL", away)
    assert main(["batch-quality"]) == EXIT_RETRY
    assert "127.0.0.1:9" in caplog.text
    assert "hush" not in caplog.text
    with pytest.raises(SourceUnavailableError):
        read_history(away, MODEL)


def test_a_frozen_database_ends_in_a_timeout(
    monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    url = server.create()
    monkeypatch.setattr(database, "ANSWER_SECONDS", 2)

    def query_while_it_freezes() -> None:
        with database.transaction(url, "test") as connection:
            connection.execute(text("SELECT 1"))
            server.freeze()
            try:
                connection.execute(text("SELECT 1"))
            finally:
                server.thaw()

    with pytest.raises(SourceUnavailableError, match="cannot test"):
        query_while_it_freezes()


@pytest.mark.parametrize("wrong", ["nonsense", "sqlite:///{place}/typo.db", "oracle+x://h/d"])
def test_an_invalid_url_is_an_error_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: str
) -> None:
    monkeypatch.setenv("WATCHKEEPER_SOURCE_URL", wrong.format(place=tmp_path))
    assert main(["batch-quality"]) == EXIT_FATAL
    assert not (tmp_path / "typo.db").exists()
    monkeypatch.delenv("WATCHKEEPER_SOURCE_URL")
    assert main(["batch-quality"]) == EXIT_FATAL
    assert main(["no-such-model"]) == EXIT_FATAL
