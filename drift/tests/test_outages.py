"""The ledger is down, frozen, locked or full: the spool keeps the records, and none is lost."""

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
from pump import MODEL, append, labels_for, predictions, rows
from sidecars import running
from sqlalchemy import func, select
from test_sidecar import Process
from waiting import wait_for

from watchkeeper.core.record import Gap, Prediction, Record, Shed
from watchkeeper.drift.sidecar import Sidecar
from watchkeeper.ledger import Ledger, migrate, tables
from watchkeeper.ledger.gaps import count_gaps

LONG = 120.0


@pytest.fixture(autouse=True)
def short_time_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONNECT_SECONDS", "LOCK_SECONDS", "STATEMENT_SECONDS", "ANSWER_SECONDS"):
        monkeypatch.setattr(f"watchkeeper.ledger.engines.{name}", 2)
    monkeypatch.setattr("watchkeeper.drift.backoff.MAXIMUM_SECONDS", 0.2)


def shipping(folder: Path, url: str) -> contextlib.AbstractContextManager[Sidecar]:
    """Run a sidecar that only ships."""
    return running(folder, url, no_platform, watch_seconds=60.0, drain_seconds=LONG)


def no_platform() -> None:
    pytest.fail("the platform is not needed")


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
    def check() -> bool:
        with reading(url) as ledger:
            return len(stored(ledger)) >= count

    return check


def mixed_records(count: int) -> tuple[list[Prediction], list[Record]]:
    """Return requests, and lines of a spool: the requests, retries, labels, gaps and rejections.

    Every fifth request has failed once before.
    """
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


def assert_complete(url: str, data: list[Prediction]) -> None:
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


def test_a_database_that_is_killed_repeatedly_stores_every_record_once_and_in_order(
    tmp_path: Path, server: Server
) -> None:
    url = server.create()
    migrate(url)
    data, lines = mixed_records(4000)
    chance = random.Random(5)
    with shipping(tmp_path, url) as sidecar:
        done = 0
        for number in range(1, 9):
            append(tmp_path / "spool", lines[done : done + 600], number)
            done += 600
            if number % 2 == 0:
                threading.Event().wait(chance.random() * 0.1)  # then it is killed at any line
                errors = sidecar.status.errors["ledger"]
                server.kill()
                append(tmp_path / "spool", lines[done : done + 100], number)
                done += 100
                wait_for(lambda seen=errors: sidecar.status.errors["ledger"] > seen, LONG)  # type: ignore[misc]
                server.start()
                with reading(url) as ledger:
                    found = stored(ledger)
                assert found == [p.id for p in data[: len(found)]], "in the order of the spool"
        append(tmp_path / "spool", lines[done:], 9)
        wait_for(shipped(url, len(data)), LONG)
        wait_for(lambda: not sidecar.status.shipping_error, LONG)
        assert sidecar.status.errors["ledger"] >= 4
    assert_complete(url, data)


def test_calls_of_a_frozen_database_time_out_and_nothing_is_lost(
    tmp_path: Path, server: Server
) -> None:
    url = server.create()
    migrate(url)
    data, lines = mixed_records(2000)
    with shipping(tmp_path, url) as sidecar:
        append(tmp_path / "spool", lines[:1000], 1)
        wait_for(shipped(url, 100), LONG)
        server.freeze()
        try:
            append(tmp_path / "spool", lines[1000:], 2)
            wait_for(lambda: sidecar.status.shipping_error, LONG)
            errors = sidecar.status.errors["ledger"]
            wait_for(lambda: sidecar.status.errors["ledger"] > errors, LONG)  # it tries again
        finally:
            server.thaw()
        wait_for(shipped(url, len(data)), LONG)
    assert_complete(url, data)


LOCKS = {
    "postgresql": ("BEGIN", "LOCK TABLE predictions IN ACCESS EXCLUSIVE MODE", "COMMIT"),
    "mariadb": ("SET autocommit=0", "LOCK TABLES predictions WRITE", "UNLOCK TABLES"),
}


def test_records_stay_in_the_spool_while_a_table_is_locked(tmp_path: Path, server: Server) -> None:
    url = server.create()
    migrate(url)
    data, lines = mixed_records(500)
    with shipping(tmp_path, url) as sidecar, reading(url) as other:
        wait_for(lambda: sidecar.status.shipped_until, LONG)
        begin, lock, release = LOCKS[server.kind]
        with other.engine.connect() as connection:
            connection.exec_driver_sql(begin)
            connection.exec_driver_sql(lock)
            append(tmp_path / "spool", lines)
            wait_for(lambda: sidecar.status.shipping_error, LONG)
            connection.exec_driver_sql(release)
        wait_for(shipped(url, len(data)), LONG)
    assert_complete(url, data)


def large(count: int, first: int = 0) -> list[Prediction]:
    """Return records that cannot be compressed."""
    chance = random.Random(1)
    return [
        msgspec.structs.replace(p, inputs={"flow": [chance.random() for _ in range(3000)]})
        for p in predictions(rows(count, 1), first=first)
    ]


def test_records_stay_in_the_spool_while_the_disk_is_full(tmp_path: Path, server: Server) -> None:
    url = server.create()
    migrate(url)
    data: list[Prediction] = []

    def full() -> bool:
        """Write one more segment; return True once the disk is full."""
        if re.search("is full|could not extend", sidecar.status.shipping_error):
            return True
        if sidecar.status.shipped >= len(data):
            part = large(100, first=len(data))
            data.extend(part)
            append(tmp_path / "spool", list(part), len(data) // 100)
        return False

    with shipping(tmp_path, url) as sidecar:
        wait_for(lambda: sidecar.status.shipped_until, LONG)
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
        assert sidecar.status.lost == 0


def test_records_stay_in_the_spool_while_the_disk_of_sqlite_is_full(
    tmp_path: Path, ledger: Ledger
) -> None:
    process = Process(tmp_path)
    try:
        wait_for(process.ready, LONG)
        _, most = resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (4 * 2**20, most))
        data = large(300)
        append(tmp_path / "spool", list(data))
        wait_for(lambda: process.get("/readyz").status_code == 503, LONG)
        assert "does not store records" in process.get("/readyz").text
        resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (most, most))
        wait_for(lambda: len(stored(ledger)) == len(data), LONG)
        assert process.end(signal.SIGTERM) == 0
    finally:
        if process.process.poll() is None:
            process.end(signal.SIGKILL)


def test_only_a_record_that_is_too_large_for_the_database_is_lost(
    tmp_path: Path, server: Server
) -> None:
    url = server.create()
    migrate(url)
    data = predictions(rows(20, 1))
    huge = msgspec.structs.replace(data[7], inputs={"inlet_pressure": ["x" * 1000] * 20_000})
    with shipping(tmp_path, url) as sidecar:
        append(tmp_path / "spool", [*data[:7], huge, *data[8:]])
        wait_for(shipped(url, 19), LONG)
        wait_for(lambda: not sidecar.status.shipping_error, LONG)
        with reading(url) as ledger:
            assert len(stored(ledger)) + sidecar.status.lost == 20
