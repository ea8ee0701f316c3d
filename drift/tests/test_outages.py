"""The ledger is down, frozen, locked or full: the spool holds, and then nothing is missing."""

import contextlib
import random
import re
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from databases import Server
from sidecars import running
from sqlalchemy import func, select
from test_sidecar import Process
from waiting import wait_for
from world import MODEL, append, labels_for, predictions, rows

from watchkeeper.contracts.record import Gap, Prediction, Record, Shed
from watchkeeper.drift.sidecar import Sidecar
from watchkeeper.ledger import Ledger, migrate, tables
from watchkeeper.ledger.gaps import count_gaps

LONG = 120.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONNECT_SECONDS", "LOCK_SECONDS", "STATEMENT_SECONDS", "ANSWER_SECONDS"):
        monkeypatch.setattr(f"watchkeeper.ledger.engines.{name}", 2)
    monkeypatch.setattr("watchkeeper.drift.sidecar.PAUSE_SECONDS", 0.2)


def shipping(folder: Path, url: str) -> contextlib.AbstractContextManager[Sidecar]:
    """A sidecar that only ships."""
    return running(folder, url, unwatched, watch_seconds=60.0, drain_seconds=LONG)


def unwatched() -> None:
    pytest.fail("nothing is watched")


@contextlib.contextmanager
def reading(url: str) -> Iterator[Ledger]:
    ledger = Ledger(url)
    yield ledger
    ledger.close()


def stored(ledger: Ledger) -> list[str]:
    with ledger.read() as connection:
        query = select(tables.predictions.c.id).order_by(tables.predictions.c.id)
        return list(connection.execute(query).scalars())


def shipped(url: str, count: int) -> Callable[[], bool]:
    def look() -> bool:
        with reading(url) as ledger:
            return len(stored(ledger)) >= count

    return look


def story(count: int) -> tuple[list[Prediction], list[Record]]:
    """Requests, every fifth of which failed once before; labels, gaps, and what was shed."""
    data = predictions(rows(count, 1))
    lines: list[Record] = []
    for number, one in enumerate(data):
        if number % 5 == 0:
            lines.append(msgspec.structs.replace(one, status="UNAVAILABLE", version=2))
            one = msgspec.structs.replace(one, attempt=2)  # noqa: PLW2901
        lines.append(one)
        if number % 10 == 0:
            lines += labels_for([one], 1.0)
        if number % 100 == 0:
            lines.append(Gap(MODEL, 1, 3, one.time, one.time + 1))
            lines.append(Shed(MODEL, 1, "grpc", 7, one.time, one.time + 1))
    return data, lines


def assert_whole(url: str, data: list[Prediction]) -> None:
    with reading(url) as ledger:
        assert stored(ledger) == [p.id for p in data]
        assert count_gaps(ledger, MODEL) == {
            "lost": 3 * -(-len(data) // 100),
            "shed": 7 * -(-len(data) // 100),
        }
        with ledger.read() as connection:
            for table, share in ((tables.superseded, 5), (tables.labels, 10)):
                count = connection.execute(select(func.count()).select_from(table)).scalar_one()
                assert count == -(-len(data) // share), table.name


def test_a_database_killed_again_and_again_gets_every_record_once_and_in_order(
    tmp_path: Path, server: Server
) -> None:
    url = server.create()
    migrate(url)
    data, lines = story(4000)
    chance = random.Random(5)
    with shipping(tmp_path, url) as sidecar:
        done = 0
        for number in range(1, 9):
            append(tmp_path / "spool", lines[done : done + 600], number)
            done += 600
            if number % 2 == 0:
                threading.Event().wait(chance.random() * 0.1)  # to kill it anywhere
                server.kill()
                append(tmp_path / "spool", lines[done : done + 100], number)
                done += 100
                wait_for(lambda: sidecar.state.trouble, LONG)
                server.start()
                with reading(url) as ledger:
                    found = stored(ledger)
                assert found == [p.id for p in data[: len(found)]], "in the order of the spool"
        append(tmp_path / "spool", lines[done:], 9)
        wait_for(shipped(url, len(data)), LONG)
        wait_for(lambda: not sidecar.state.trouble, LONG)
        assert sidecar.state.errors["ledger"] >= 4
    assert_whole(url, data)


def test_a_frozen_database_is_given_up_and_gets_everything_when_it_goes_on(
    tmp_path: Path, server: Server
) -> None:
    url = server.create()
    migrate(url)
    data, lines = story(2000)
    with shipping(tmp_path, url) as sidecar:
        append(tmp_path / "spool", lines[:1000], 1)
        wait_for(shipped(url, 100), LONG)
        server.freeze()
        try:
            append(tmp_path / "spool", lines[1000:], 2)
            wait_for(lambda: sidecar.state.trouble, LONG)
            errors = sidecar.state.errors["ledger"]
            wait_for(lambda: sidecar.state.errors["ledger"] > errors, LONG)  # it tries again
        finally:
            server.thaw()
        wait_for(shipped(url, len(data)), LONG)
    assert_whole(url, data)


LOCKS = {
    "postgresql": ("BEGIN", "LOCK TABLE predictions IN ACCESS EXCLUSIVE MODE", "COMMIT"),
    "mariadb": ("SET autocommit=0", "LOCK TABLES predictions WRITE", "UNLOCK TABLES"),
}


def test_a_locked_table_holds_the_records_until_it_is_free(tmp_path: Path, server: Server) -> None:
    url = server.create()
    migrate(url)
    data, lines = story(500)
    with shipping(tmp_path, url) as sidecar, reading(url) as other:
        wait_for(lambda: sidecar.state.shipped_until, LONG)
        begin, lock, release = LOCKS[server.kind]
        with other.engine.connect() as connection:
            connection.exec_driver_sql(begin)
            connection.exec_driver_sql(lock)
            append(tmp_path / "spool", lines)
            wait_for(lambda: sidecar.state.trouble, LONG)
            connection.exec_driver_sql(release)
        wait_for(shipped(url, len(data)), LONG)
    assert_whole(url, data)


def large(count: int, first: int = 0) -> list[Prediction]:
    """Records that nothing can compress."""
    chance = random.Random(1)
    return [
        msgspec.structs.replace(p, inputs={"heat": [chance.random() for _ in range(3000)]})
        for p in predictions(rows(count, 1), first=first)
    ]


def test_a_full_disk_holds_the_records_until_there_is_room(tmp_path: Path, server: Server) -> None:
    url = server.create()
    migrate(url)
    data: list[Prediction] = []

    def full() -> bool:
        """Write on, one segment after the other, until there is no room for it."""
        if re.search("is full|could not extend", sidecar.state.trouble):
            return True
        if sidecar.state.shipped >= len(data):
            part = large(100, first=len(data))
            data.extend(part)
            append(tmp_path / "spool", list(part), len(data) // 100)
        return False

    with shipping(tmp_path, url) as sidecar:
        wait_for(lambda: sidecar.state.shipped_until, LONG)
        server.limit_growth(20 * 2**20)
        try:
            wait_for(full, LONG)
            with reading(url) as ledger:
                found = stored(ledger)
            assert 0 < len(found) < len(data)
            assert found == [p.id for p in data[: len(found)]]
        finally:
            server.limit_growth(None)
        wait_for(shipped(url, len(data)), LONG)
    with reading(url) as ledger:
        assert stored(ledger) == [p.id for p in data]
        assert sidecar.state.lost == 0


def test_a_full_disk_under_sqlite_holds_the_records_too(tmp_path: Path, ledger: Ledger) -> None:
    process = Process(tmp_path)
    try:
        wait_for(process.ready, LONG)
        _, most = resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (4 * 2**20, most))
        data = large(300)
        append(tmp_path / "spool", list(data))
        wait_for(lambda: process.get("/readyz").status_code == 503, LONG)
        assert "does not take records" in process.get("/readyz").text
        resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (most, most))
        wait_for(lambda: len(stored(ledger)) == len(data), LONG)
        assert process.end(signal.SIGTERM) == 0
    finally:
        if process.process.poll() is None:
            process.end(signal.SIGKILL)


def test_a_record_larger_than_the_database_takes_is_lost_alone(
    tmp_path: Path, server: Server
) -> None:
    url = server.create()
    migrate(url)
    data = predictions(rows(20, 1))
    huge = msgspec.structs.replace(data[7], inputs={"heat": ["x" * 1000] * 20_000})
    with shipping(tmp_path, url) as sidecar:
        append(tmp_path / "spool", [*data[:7], huge, *data[8:]])
        wait_for(shipped(url, 19), LONG)
        wait_for(lambda: not sidecar.state.trouble, LONG)
        with reading(url) as ledger:
            assert len(stored(ledger)) + sidecar.state.lost == 20
