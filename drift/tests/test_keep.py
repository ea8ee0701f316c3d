"""The sidecar that watches keeps the ledger; clocks that are set mislead nobody."""

import math
import time
from pathlib import Path

import msgspec
import pytest
from sidecars import running
from test_outages import LONG
from test_sidecar import Process
from waiting import wait_for
from world import MODEL, Runs, append, labels_for, make_version, predictions, rows

from watchkeeper.contracts.policies import DriftPolicy, RetentionPolicy
from watchkeeper.drift.keep import LOOK_SECONDS, Keeper, steady_clock
from watchkeeper.drift.lease import Lease
from watchkeeper.drift.settings import Settings
from watchkeeper.drift.ship import Shipper
from watchkeeper.drift.watch import Watch
from watchkeeper.drift.window import next_window
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.deletions import request_deletion
from watchkeeper.ledger.events import Event, emit, history
from watchkeeper.ledger.observations import count_labels, observations
from watchkeeper.ledger.reports import DriftReport, reports, save_report
from watchkeeper.ledger.store import SpoolState, ship, shipped_until

DAY = 86400.0
NOW = 1000 * DAY


class Clocks:
    """A wall clock that can be set, and one that cannot."""

    def __init__(self) -> None:
        self.wall, self.steady = NOW, 50.0

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds

    def keeper(self, ledger: Ledger, **policy: int) -> Keeper:
        return Keeper(
            ledger,
            MODEL,
            RetentionPolicy(**policy),
            clock=lambda: self.wall,
            steady=lambda: self.steady,
        )


def kept(ledger: Ledger) -> int:
    return len(observations(ledger, MODEL, 1, since=0.0))


def spool(name: str, until: float) -> SpoolState:
    return SpoolState(name, MODEL, 1, until, seen=until)


def test_a_spool_that_was_silent_while_listened_to_holds_nobody_any_more(ledger: Ledger) -> None:
    clocks = Clocks()
    keeper = clocks.keeper(ledger)
    ship(ledger, [], [], spool("dead", 1.0))
    for turn in range(5):
        ship(ledger, [], [], spool("alive", NOW + turn))
        keeper.turn()
        clocks.pass_time(LOOK_SECONDS)
    assert shipped_until(ledger, MODEL, [1]) == 1.0
    ship(ledger, [], [], spool("alive", NOW + 9))
    keeper.turn()
    assert shipped_until(ledger, MODEL, [1]) == NOW + 9
    assert [e.kind for e in history(ledger, MODEL)] == ["spool-abandoned", "spool-lost"]


def test_neither_an_outage_nor_a_clock_that_is_set_gives_up_a_spool(ledger: Ledger) -> None:
    clocks = Clocks()
    keeper = clocks.keeper(ledger)
    ship(ledger, [], [], spool("alive", 1.0))
    keeper.turn()
    clocks.pass_time(3600.0)  # no turn could be taken: the ledger was down for everybody
    keeper.turn()
    clocks.wall += 100 * DAY
    clocks.pass_time(LOOK_SECONDS)
    keeper.turn()
    assert shipped_until(ledger, MODEL, [1]) == 1.0


def test_a_clock_that_jumps_ahead_removes_nothing_for_a_day(ledger: Ledger) -> None:
    clocks = Clocks()
    keeper = clocks.keeper(ledger)
    ship(ledger, predictions(rows(300, 1), start=NOW - DAY), [], spool("a", NOW))
    keeper.turn()
    clocks.wall += 1000 * DAY
    for _ in range(20):
        clocks.pass_time(3600.0)
        keeper.turn()
    assert kept(ledger) == 300
    clocks.wall -= 1000 * DAY
    clocks.pass_time(3600.0)
    keeper.turn()
    clocks.pass_time(2 * DAY)
    while keeper.turn():
        pass
    assert kept(ledger) == 300
    clocks.pass_time(100 * DAY)
    while keeper.turn():
        pass
    assert kept(ledger) == 0
    clocks.pass_time(DAY)
    keeper.turn()
    told = [e.details["predictions"] for e in history(ledger, MODEL, kind="retention")]
    assert told == [300]


def test_the_steady_clock_goes_on_while_the_machine_is_suspended() -> None:
    """Nothing here can suspend a machine: CLOCK_BOOTTIME is by definition the clock that counts."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        pytest.skip("this system has one monotonic clock")
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= steady_clock() <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_a_machine_that_was_suspended_goes_on_removing(ledger: Ledger) -> None:
    clocks = Clocks()
    keeper = clocks.keeper(ledger)
    ship(ledger, predictions(rows(30, 1), start=NOW - 90 * DAY), [], spool("a", NOW))
    keeper.turn()
    assert kept(ledger) == 30
    clocks.pass_time(3600.0)  # by the clock of the wall and by the one that counts suspension
    while keeper.turn():
        pass
    assert kept(ledger) == 0


def test_only_the_newest_are_kept_while_more_come(ledger: Ledger) -> None:
    clocks = Clocks()
    keeper = clocks.keeper(ledger, predictions=1000)
    for minute in range(8):
        start = NOW + 60.0 * minute
        batch = [
            msgspec.structs.replace(p, time=start + (n + 0.5) / 10)
            for n, p in enumerate(predictions(rows(300, 1), first=300 * minute))
        ]
        ship(ledger, batch, [], spool("a", NOW))
        clocks.pass_time(60.0)
        while keeper.turn():
            pass
        settled = 300 * minute  # those of the last minute are not counted yet
        assert kept(ledger) == min(settled, 1000) + 300


def test_the_watching_sidecar_forgets_what_is_asked_for_also_from_the_spool(
    tmp_path: Path, url: str, ledger: Ledger
) -> None:
    make_version(tmp_path / "version", rows(2000, 1))
    start = time.time() - 5000
    data = predictions(rows(100, 2), start=start)
    data = [
        msgspec.structs.replace(p, subject="press-7") if n % 10 == 0 else p
        for n, p in enumerate(data)
    ]
    emit(ledger, Event("promoted", MODEL, 1, "promoted", 1.0, "first"))
    ship(ledger, data[:50], labels_for(data[:50]), spool("other", start))
    append(tmp_path / "spool", [*data[50:], *labels_for(data[50:])])
    request_deletion(ledger, MODEL, "press-7", time.time() - 100)
    with running(tmp_path, url) as sidecar:
        wait_for(lambda: sidecar.state.shipped >= 100, LONG)
        wait_for(lambda: kept(ledger) == 90, LONG)
        assert history(ledger, MODEL, kind="forgotten") == [], "the other spool may hold some"
        ship(ledger, [], [], spool("other", time.time()))
        wait_for(lambda: history(ledger, MODEL, kind="forgotten"), LONG)
    assert kept(ledger) == 90
    assert count_labels(ledger, MODEL, since=0.0)[0] == 90
    (told,) = history(ledger, MODEL, kind="forgotten")
    assert (told.details["predictions"], told.details["labels"]) == (5, 5)


def test_a_retention_that_cannot_be_is_told_before_anything_starts(tmp_path: Path) -> None:
    process = Process(tmp_path, WATCHKEEPER_RETENTION='{"days": 0}')
    assert process.process.wait(LONG) == 2
    assert "WATCHKEEPER_RETENTION" in process.said()


def test_less_is_said_to_be_shipped_when_the_clock_went_back(
    tmp_path: Path, ledger: Ledger
) -> None:
    clocks = Clocks()
    shipper = Shipper(tmp_path, ledger, MODEL, 1, lambda: clocks.wall)
    append(tmp_path, list(predictions(rows(5, 1), start=NOW)))
    shipper.turn()
    assert shipped_until(ledger, MODEL, [1]) == NOW - 1
    clocks.wall -= 3600
    append(tmp_path, list(predictions(rows(5, 1), start=NOW - 3600, first=5)), 2)
    append(tmp_path, list(predictions(rows(5, 1), start=NOW - 3610, first=10)), 3)
    reached = []
    while shipper.turn():
        reached.append(shipped_until(ledger, MODEL, [1]))
    assert all(value is not None and value <= NOW - 3601 for value in reached)
    assert shipped_until(ledger, MODEL, [1]) == NOW - 3601
    assert kept(ledger) == 15
    clocks.wall += 7200
    shipper.turn()
    assert shipped_until(ledger, MODEL, [1]) == NOW + 3599


def test_what_was_stamped_in_the_future_does_not_blind_the_watch(
    tmp_path: Path, ledger: Ledger
) -> None:
    policy = DriftPolicy(window=100, every=50)
    manifest = make_version(tmp_path / "version", rows(2000, 1), policy)
    emit(ledger, Event("promoted", MODEL, 1, "promoted", 1.0, "first"))
    ahead = predictions(rows(60, 3), start=NOW + 30 * DAY, first=900)
    ship(ledger, ahead, [], spool("a", NOW))
    save_report(ledger, DriftReport(MODEL, 1, NOW, NOW + 30 * DAY, True, {}))
    ship(ledger, predictions(rows(150, 2), start=NOW - 150), [], spool("a", NOW))
    settings = Settings(
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
        Lease(Runs, MODEL, 1),  # type: ignore[arg-type]
        manifest,
        policy,
        clock=lambda: NOW,
    )
    while watch.turn():
        pass
    ends = [r.window_end for r in reports(ledger, MODEL, 1, until=NOW)]
    assert len(ends) == 2
    assert watch.view["verdict"] != "drifted"
    found = next_window(ledger, MODEL, 1, rows=100, every=50, after=ends[-1], until=math.inf)
    assert found is not None, "once its time has come it is looked at"
