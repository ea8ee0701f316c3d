"""Retention by the watching sidecar, and clocks that are set."""

import math
import time
from pathlib import Path

import msgspec
import pytest
from fake_platform import FakePlatform
from pump import MODEL, append, drift_report, labels_for, make_version, predictions, rows
from sidecars import running
from test_outages import LONG
from test_sidecar import Process
from waiting import wait_for

from watchkeeper.core.events import Event, Promoted, RowsRemoved, SubjectForgotten
from watchkeeper.core.policies import DriftPolicy, RetentionPolicy
from watchkeeper.drift.lease import WatchLease
from watchkeeper.drift.retention import CHECK_SECONDS, Retention, boot_clock
from watchkeeper.drift.settings import SidecarSettings
from watchkeeper.drift.ship import Shipper
from watchkeeper.drift.watch import Watch
from watchkeeper.drift.window import next_window
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.counts import count_labelled_rows
from watchkeeper.ledger.deletions import request_deletion
from watchkeeper.ledger.events import emit, history
from watchkeeper.ledger.observations import observations
from watchkeeper.ledger.records import store_records
from watchkeeper.ledger.reports import reports, save_report
from watchkeeper.ledger.spools import SpoolState, shipped_until

DAY = 86400.0
NOW = 1000 * DAY


class Clocks:
    """A wall clock that can be set, and one that cannot."""

    def __init__(self) -> None:
        self.wall, self.boot = NOW, 50.0

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.boot += seconds

    def retention(self, ledger: Ledger, **policy: int) -> Retention:
        return Retention(
            ledger,
            MODEL,
            RetentionPolicy(**policy),
            wall_clock=lambda: self.wall,
            boot_clock=lambda: self.boot,
        )


def stored(ledger: Ledger) -> int:
    return len(observations(ledger, MODEL, 1, since=0.0))


def spool(name: str, until: float) -> SpoolState:
    return SpoolState(name, MODEL, 1, until, seen=until)


def test_a_spool_that_is_silent_while_retention_runs_is_abandoned(ledger: Ledger) -> None:
    clocks = Clocks()
    retention = clocks.retention(ledger)
    store_records(ledger, [], [], spool("dead", 1.0))
    for turn in range(5):
        store_records(ledger, [], [], spool("alive", NOW + turn))
        retention.run_once()
        clocks.pass_time(CHECK_SECONDS)
    assert shipped_until(ledger, MODEL, [1]) == 1.0
    store_records(ledger, [], [], spool("alive", NOW + 9))
    retention.run_once()
    assert shipped_until(ledger, MODEL, [1]) == NOW + 9
    assert [e.kind for e in history(ledger, MODEL)] == ["spool-abandoned", "spool-lost"]


def test_neither_an_outage_nor_a_clock_that_is_set_abandons_a_spool(ledger: Ledger) -> None:
    clocks = Clocks()
    retention = clocks.retention(ledger)
    store_records(ledger, [], [], spool("alive", 1.0))
    retention.run_once()
    clocks.pass_time(3600.0)  # no check was possible: the ledger was down
    retention.run_once()
    clocks.wall += 100 * DAY
    clocks.pass_time(CHECK_SECONDS)
    retention.run_once()
    assert shipped_until(ledger, MODEL, [1]) == 1.0


def test_a_clock_that_is_set_ahead_removes_nothing_for_a_day(ledger: Ledger) -> None:
    clocks = Clocks()
    retention = clocks.retention(ledger)
    store_records(ledger, predictions(rows(300, 1), start=NOW - DAY), [], spool("a", NOW))
    retention.run_once()
    clocks.wall += 1000 * DAY
    for _ in range(20):
        clocks.pass_time(3600.0)
        retention.run_once()
    assert stored(ledger) == 300
    clocks.wall -= 1000 * DAY
    clocks.pass_time(3600.0)
    retention.run_once()
    clocks.pass_time(2 * DAY)
    while retention.run_once():
        pass
    assert stored(ledger) == 300
    clocks.pass_time(100 * DAY)
    while retention.run_once():
        pass
    assert stored(ledger) == 0
    clocks.pass_time(DAY)
    retention.run_once()
    assert [e.details.predictions for e in history(ledger, MODEL, kind=RowsRemoved)] == [300]


def test_the_boot_clock_includes_suspension() -> None:
    """A test cannot suspend the machine, but CLOCK_BOOTTIME includes suspension by definition."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        pytest.skip("this system has one monotonic clock")
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= boot_clock() <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_retention_continues_after_suspension(ledger: Ledger) -> None:
    clocks = Clocks()
    retention = clocks.retention(ledger)
    store_records(ledger, predictions(rows(30, 1), start=NOW - 90 * DAY), [], spool("a", NOW))
    retention.run_once()
    assert stored(ledger) == 30
    clocks.pass_time(3600.0)  # by both clocks: the boot clock includes suspension
    while retention.run_once():
        pass
    assert stored(ledger) == 0


def test_the_newest_predictions_stay_while_more_arrive(ledger: Ledger) -> None:
    clocks = Clocks()
    retention = clocks.retention(ledger, predictions=1000)
    for minute in range(8):
        start = NOW + 60.0 * minute
        batch = [
            msgspec.structs.replace(p, time=start + (n + 0.5) / 10)
            for n, p in enumerate(predictions(rows(300, 1), first=300 * minute))
        ]
        store_records(ledger, batch, [], spool("a", NOW))
        clocks.pass_time(60.0)
        while retention.run_once():
            pass
        settled = 300 * minute  # records of the last minute are not counted yet
        assert stored(ledger) == min(settled, 1000) + 300


def test_a_deletion_includes_records_that_are_still_in_a_spool(
    tmp_path: Path, url: str, ledger: Ledger
) -> None:
    make_version(tmp_path / "version", rows(2000, 1))
    start = time.time() - 5000
    data = predictions(rows(100, 2), start=start)
    data = [
        msgspec.structs.replace(p, subject="press-7") if n % 10 == 0 else p
        for n, p in enumerate(data)
    ]
    emit(ledger, Event("promoted", MODEL, 1, 1.0, "first", Promoted()))
    store_records(ledger, data[:50], labels_for(data[:50]), spool("other", start))
    append(tmp_path / "spool", [*data[50:], *labels_for(data[50:])])
    request_deletion(ledger, MODEL, "press-7", time.time() - 100)
    with running(tmp_path, url) as sidecar:
        wait_for(lambda: sidecar.status.shipped >= 100, LONG)
        wait_for(lambda: stored(ledger) == 90, LONG)
        assert history(ledger, MODEL, kind=SubjectForgotten) == [], "another spool may have more"
        store_records(ledger, [], [], spool("other", time.time()))
        wait_for(lambda: history(ledger, MODEL, kind=SubjectForgotten), LONG)
    assert stored(ledger) == 90
    assert count_labelled_rows(ledger, MODEL, since=0.0)[0] == 90
    (event,) = history(ledger, MODEL, kind=SubjectForgotten)
    assert (event.details.predictions, event.details.labels) == (5, 5)


def test_an_invalid_retention_policy_is_reported_at_startup(tmp_path: Path) -> None:
    process = Process(tmp_path, WATCHKEEPER_RETENTION='{"days": 0}')
    assert process.process.wait(LONG) == 2
    assert "WATCHKEEPER_RETENTION" in process.log()


def test_shipped_until_goes_back_if_the_clock_goes_back(tmp_path: Path, ledger: Ledger) -> None:
    clocks = Clocks()
    shipper = Shipper(tmp_path, ledger, MODEL, 1, lambda: clocks.wall)
    append(tmp_path, list(predictions(rows(5, 1), start=NOW)))
    shipper.ship_batch()
    assert shipped_until(ledger, MODEL, [1]) == NOW - 1
    clocks.wall -= 3600
    append(tmp_path, list(predictions(rows(5, 1), start=NOW - 3600, first=5)), 2)
    append(tmp_path, list(predictions(rows(5, 1), start=NOW - 3610, first=10)), 3)
    reached = []
    while shipper.ship_batch():
        reached.append(shipped_until(ledger, MODEL, [1]))
    assert all(value is not None and value <= NOW - 3601 for value in reached)
    assert shipped_until(ledger, MODEL, [1]) == NOW - 3601
    assert stored(ledger) == 15
    clocks.wall += 7200
    shipper.ship_batch()
    assert shipped_until(ledger, MODEL, [1]) == NOW + 3599


def test_records_of_the_future_do_not_stop_the_watch(tmp_path: Path, ledger: Ledger) -> None:
    policy = DriftPolicy(window=100, every=50)
    manifest = make_version(tmp_path / "version", rows(2000, 1), policy)
    emit(ledger, Event("promoted", MODEL, 1, 1.0, "first", Promoted()))
    ahead = predictions(rows(60, 3), start=NOW + 30 * DAY, first=900)
    store_records(ledger, ahead, [], spool("a", NOW))
    report = drift_report(NOW + 30 * DAY, "drifted", start=NOW)
    save_report(ledger, MODEL, 1, report)
    store_records(ledger, predictions(rows(150, 2), start=NOW - 150), [], spool("a", NOW))
    settings = SidecarSettings(
        model=MODEL,
        version=1,
        model_folder=tmp_path / "version",
        spool=tmp_path / "spool",
        ledger_url="",
        platform="",
        port=0,
    )
    watch = Watch(
        settings,
        ledger,
        WatchLease(FakePlatform, MODEL, 1),  # type: ignore[arg-type]
        manifest,
        policy,
        clock=lambda: NOW,
    )
    while watch.run_once():
        pass
    ends = [r.window.end for r in reports(ledger, MODEL, 1, until=NOW)]
    assert len(ends) == 2
    assert watch.status is not None
    assert watch.status.report is not None
    assert watch.status.report.verdict != "drifted"
    found = next_window(ledger, MODEL, 1, rows=100, every=50, after=ends[-1], until=math.inf)
    assert found is not None, "later, when its time has come"
