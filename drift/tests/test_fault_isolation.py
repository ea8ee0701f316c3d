"""Fault isolation: shipping, the watch and retention continue if another one fails."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import pytest
from fake_platform import FakePlatform
from free_ports import free_port
from pump import MODEL, append, labels_for, make_version, predictions, rows
from sidecars import running
from sqlalchemy import select
from waiting import wait_for

from watchkeeper.core.events import (
    Event,
    Promoted,
    SubjectForgotten,
    WatchFailed,
    WatchRecovered,
)
from watchkeeper.core.policies import DriftPolicy
from watchkeeper.core.spool import CHECKPOINT
from watchkeeper.drift.ship import Shipper
from watchkeeper.ledger import Ledger, tables
from watchkeeper.ledger.deletions import request_deletion
from watchkeeper.ledger.events import emit, history, unresolved_watch_failure
from watchkeeper.ledger.observations import observations
from watchkeeper.ledger.records import store_records
from watchkeeper.ledger.spools import SpoolState, abandon_spool, open_spools
from watchkeeper.platforms import Platform, PlatformError

DAY = 86400.0
POLICY = DriftPolicy(window=100, every=50)


def unreachable() -> Platform:
    raise PlatformError("the API server does not answer")


def broken() -> Platform:
    raise RuntimeError("a defect")


def stored(ledger: Ledger) -> int:
    return len(observations(ledger, MODEL, 1, since=0.0))


@pytest.mark.parametrize("platform", [FakePlatform, unreachable, broken])
def test_a_failing_watch_stops_neither_retention_nor_shipping(
    tmp_path: Path, url: str, ledger: Ledger, platform: Callable[[], Platform]
) -> None:
    # With a platform that works, the watch fails because the folder of the version is missing.
    if platform is not FakePlatform:
        make_version(tmp_path / "version", rows(2000, 1))
    emit(ledger, Event("promoted", MODEL, 1, 1.0, "first", Promoted()))
    now = time.time()
    old = predictions(rows(50, 1), start=now - 100 * DAY)
    store_records(ledger, old, [], SpoolState("gone", MODEL, 1, now, closed=True))
    request_deletion(ledger, MODEL, "press-7", now - 200)
    with running(tmp_path, url, platform, port=free_port()) as sidecar:
        fresh = predictions(rows(70, 1), start=now - 1090, first=1000)
        append(sidecar.settings.spool, list(fresh))
        wait_for(lambda: sidecar.status.shipped == 70)
        wait_for(lambda: sidecar.status.errors["watch"] >= 2)
        wait_for(lambda: stored(ledger) == 70)
        wait_for(lambda: history(ledger, MODEL, kind=SubjectForgotten))
        metrics = httpx.get(f"http://127.0.0.1:{sidecar.settings.port}/metrics", timeout=5).text
        assert f'watchkeeper_watch_errors_total{{model="{MODEL}",version="1"}}' in metrics
        assert sidecar.status.errors["retention"] == sidecar.status.errors["shipping"] == 0
        assert not sidecar.status.shipping_error


def test_failing_retention_stops_neither_the_watch_nor_shipping(
    tmp_path: Path, url: str, ledger: Ledger
) -> None:
    make_version(tmp_path / "version", rows(2000, 1), POLICY)
    emit(ledger, Event("promoted", MODEL, 1, 1.0, "first", Promoted()))
    with ledger.write() as connection:
        tables.removals.drop(connection)
    with running(tmp_path, url) as sidecar:
        append(sidecar.settings.spool, list(predictions(rows(150, 2), start=time.time() - 200)))
        wait_for(lambda: sidecar.status.drift and sidecar.status.drift.report)
        wait_for(lambda: sidecar.status.errors["retention"] >= 2)
        assert sidecar.status.shipped == 150
        assert sidecar.status.errors["watch"] == 0


def test_failing_shipping_is_reported_and_tried_again(
    tmp_path: Path, url: str, ledger: Ledger
) -> None:
    with running(tmp_path, url) as sidecar:
        wait_for(lambda: sidecar.status.shipped_until)
        (sidecar.settings.spool / CHECKPOINT).mkdir()  # no checkpoint can be written
        append(sidecar.settings.spool, list(predictions(rows(50, 1))))
        wait_for(lambda: sidecar.status.errors["shipping"] >= 2)
        assert "records cannot be shipped" in sidecar.status.shipping_error
        (sidecar.settings.spool / CHECKPOINT).rmdir()
        wait_for(lambda: not sidecar.status.shipping_error)
        assert stored(ledger) == 50


def test_the_records_of_a_deleted_subject_in_an_abandoned_spool_are_not_stored(
    tmp_path: Path, url: str, ledger: Ledger
) -> None:
    make_version(tmp_path / "version", rows(2000, 1))
    emit(ledger, Event("promoted", MODEL, 1, 1.0, "first", Promoted()))
    start = time.time() - 1000
    data = [
        msgspec.structs.replace(p, subject="press-7") if n % 10 == 0 else p
        for n, p in enumerate(predictions(rows(200, 2), start=start))
    ]
    late = Shipper(tmp_path / "late", ledger, MODEL, 1)
    append(tmp_path / "late", list(data[:100]))
    late.ship_batch()
    append(tmp_path / "late", [*data[100:], *labels_for(data[100:])], 2)
    for one in open_spools(ledger, MODEL):
        assert abandon_spool(ledger, one, time.time(), 300.0)
    request_deletion(ledger, MODEL, "press-7", time.time() - 200)
    with running(tmp_path, url) as sidecar:
        wait_for(lambda: history(ledger, MODEL, kind=SubjectForgotten))
        assert stored(ledger) == 90
        while late.ship_batch():
            pass
        append(sidecar.settings.spool, list(labels_for(data)))
        wait_for(lambda: sidecar.status.shipped == 200)
    assert stored(ledger) == 180
    with ledger.read() as connection:
        labels = set(connection.execute(select(tables.labels.c.prediction)).scalars())
        subjects = set(connection.execute(select(tables.predictions.c.subject)).scalars())
    assert labels == {p.id for p in data if not p.subject}
    assert subjects == {""}


def test_a_watch_that_fails_is_visible_until_it_works_again(
    tmp_path: Path, url: str, ledger: Ledger
) -> None:
    emit(ledger, Event("promoted", MODEL, 1, 1.0, "first", Promoted()))
    port = free_port()
    with running(tmp_path, url, port=port) as sidecar:  # the folder of the version is missing
        wait_for(lambda: unresolved_watch_failure(ledger, MODEL, 1))
        (failed,) = history(ledger, MODEL, kind=WatchFailed)
        assert "manifest.json" in failed.reason
        drift = httpx.get(f"http://127.0.0.1:{port}/drift", timeout=5).json()
        assert "manifest.json" in drift["error"]
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
        assert f'watchkeeper_watch_failing{{model="{MODEL}",version="1"}} 1.0' in metrics
        make_version(tmp_path / "version", rows(2000, 1))
        wait_for(lambda: unresolved_watch_failure(ledger, MODEL, 1) is None)
        wait_for(lambda: not sidecar.status.watch_error)
    assert len(history(ledger, MODEL, kind=WatchFailed)) == 1
    assert len(history(ledger, MODEL, kind=WatchRecovered)) == 1
