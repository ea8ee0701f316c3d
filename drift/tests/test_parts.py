"""Shipping, the watch and the keeper: none of them ends because another one fails."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import pytest
from sidecars import running
from sqlalchemy import select
from test_sidecar import free_port
from waiting import wait_for
from world import MODEL, Runs, append, labels_for, make_version, predictions, rows

from watchkeeper.contracts.policies import DriftPolicy
from watchkeeper.contracts.spool import CHECKPOINT
from watchkeeper.drift.ship import Shipper
from watchkeeper.ledger import Ledger, tables
from watchkeeper.ledger.deletions import request_deletion
from watchkeeper.ledger.events import Event, emit, history
from watchkeeper.ledger.observations import observations
from watchkeeper.ledger.spools import abandon, open_spools
from watchkeeper.ledger.store import SpoolState, ship
from watchkeeper.platforms import Platform, PlatformError

DAY = 86400.0
POLICY = DriftPolicy(window=100, every=50)


def unreachable() -> Platform:
    raise PlatformError("the API server does not answer")


def defective() -> Platform:
    raise RuntimeError("a defect")


def kept(ledger: Ledger) -> int:
    return len(observations(ledger, MODEL, 1, since=0.0))


@pytest.mark.parametrize("platform", [Runs, unreachable, defective])
def test_a_watch_that_fails_stops_neither_the_keeper_nor_the_shipping(
    tmp_path: Path, url: str, ledger: Ledger, platform: Callable[[], Platform]
) -> None:
    if platform is not Runs:  # otherwise the version is broken: its folder is not there
        make_version(tmp_path / "version", rows(2000, 1))
    emit(ledger, Event("promoted", MODEL, 1, "promoted", 1.0, "first"))
    now = time.time()
    old = predictions(rows(50, 1), start=now - 100 * DAY)
    ship(ledger, old, [], SpoolState("gone", MODEL, 1, now, closed=True))
    request_deletion(ledger, MODEL, "press-7", now - 200)
    with running(tmp_path, url, platform, port=free_port()) as sidecar:
        fresh = predictions(rows(70, 1), start=now - 1090, first=1000)
        append(sidecar.settings.spool, list(fresh))
        wait_for(lambda: sidecar.state.shipped == 70)
        wait_for(lambda: sidecar.state.errors["watch"] >= 2)
        wait_for(lambda: kept(ledger) == 70)
        wait_for(lambda: history(ledger, MODEL, kind="forgotten"))
        told = httpx.get(f"http://127.0.0.1:{sidecar.settings.port}/metrics", timeout=5).text
        assert f'watchkeeper_watch_errors_total{{model="{MODEL}",version="1"}}' in told
        assert sidecar.state.errors["keeper"] == sidecar.state.errors["shipping"] == 0
        assert not sidecar.state.trouble


def test_a_keeper_that_fails_stops_neither_the_watch_nor_the_shipping(
    tmp_path: Path, url: str, ledger: Ledger
) -> None:
    make_version(tmp_path / "version", rows(2000, 1), POLICY)
    emit(ledger, Event("promoted", MODEL, 1, "promoted", 1.0, "first"))
    with ledger.begin() as connection:
        tables.removals.drop(connection)
    with running(tmp_path, url) as sidecar:
        append(sidecar.settings.spool, list(predictions(rows(150, 2), start=time.time() - 200)))
        wait_for(lambda: sidecar.state.view.get("window", {}).get("rows"))
        wait_for(lambda: sidecar.state.errors["keeper"] >= 2)
        assert sidecar.state.shipped == 150
        assert sidecar.state.errors["watch"] == 0


def test_shipping_that_fails_is_told_and_tried_again(
    tmp_path: Path, url: str, ledger: Ledger
) -> None:
    with running(tmp_path, url) as sidecar:
        wait_for(lambda: sidecar.state.shipped_until)
        (sidecar.settings.spool / CHECKPOINT).mkdir()  # no checkpoint can be written
        append(sidecar.settings.spool, list(predictions(rows(50, 1))))
        wait_for(lambda: sidecar.state.errors["shipping"] >= 2)
        assert "records cannot be shipped" in sidecar.state.trouble
        (sidecar.settings.spool / CHECKPOINT).rmdir()
        wait_for(lambda: not sidecar.state.trouble)
        assert kept(ledger) == 50


def test_a_forgotten_subject_does_not_come_back_with_a_sidecar_that_was_given_up(
    tmp_path: Path, url: str, ledger: Ledger
) -> None:
    make_version(tmp_path / "version", rows(2000, 1))
    emit(ledger, Event("promoted", MODEL, 1, "promoted", 1.0, "first"))
    start = time.time() - 1000
    data = [
        msgspec.structs.replace(p, subject="press-7") if n % 10 == 0 else p
        for n, p in enumerate(predictions(rows(200, 2), start=start))
    ]
    asleep = Shipper(tmp_path / "asleep", ledger, MODEL, 1)
    append(tmp_path / "asleep", list(data[:100]))
    asleep.turn()
    append(tmp_path / "asleep", [*data[100:], *labels_for(data[100:])], 2)
    for one in open_spools(ledger, MODEL):
        assert abandon(ledger, one, time.time(), 300.0)
    request_deletion(ledger, MODEL, "press-7", time.time() - 200)
    with running(tmp_path, url) as sidecar:
        wait_for(lambda: history(ledger, MODEL, kind="forgotten"))
        assert kept(ledger) == 90
        while asleep.turn():
            pass
        append(sidecar.settings.spool, list(labels_for(data)))
        wait_for(lambda: sidecar.state.shipped == 200)
    assert kept(ledger) == 180
    with ledger.read() as connection:
        labels = set(connection.execute(select(tables.labels.c.prediction)).scalars())
        subjects = set(connection.execute(select(tables.predictions.c.subject)).scalars())
    assert labels == {p.id for p in data if not p.subject}
    assert subjects == {""}
