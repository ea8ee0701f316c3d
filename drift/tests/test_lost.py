"""A pod deleted by force takes its unshipped tail with it: told, with what can be known of it."""

import msgspec
import pytest
from test_keep import NOW, Clocks, spool
from world import MODEL, predictions, rows

from watchkeeper.drift.keep import LOOK_SECONDS, Keeper
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import Event, history
from watchkeeper.ledger.store import SpoolState, ship

SHIPPED, HEARD = NOW - 2.0, NOW - 1.0


def told(ledger: Ledger, kind: str) -> list[Event]:
    return history(ledger, MODEL, kind=kind)


def given_up(ledger: Ledger, *, last: SpoolState) -> tuple[Clocks, Keeper]:
    """Take turns until the spool is given up; its replica's sidecar goes on writing."""
    clocks = Clocks()
    keeper = clocks.keeper(ledger)
    ship(ledger, [], [], last)
    while not told(ledger, "spool-abandoned"):
        ship(ledger, [], [], spool("replica", clocks.wall))
        keeper.turn()
        assert clocks.wall < NOW + 3600
        clocks.pass_time(LOOK_SECONDS)
    return clocks, keeper


def gone(until: float = SHIPPED) -> SpoolState:
    return SpoolState("gone", MODEL, 1, until, seen=HEARD)


def test_a_pod_that_vanished_is_told_with_the_interval_that_may_be_missing(ledger: Ledger) -> None:
    steady = [  # ten requests a second, up to the end
        msgspec.structs.replace(p, time=SHIPPED - n / 10)
        for n, p in enumerate(predictions(rows(700, 1)))
    ]
    ship(ledger, steady, [], spool("replica", NOW))
    given_up(ledger, last=gone())
    (lost,) = told(ledger, "spool-lost")
    (abandoned,) = told(ledger, "spool-abandoned")
    assert lost.version == 1
    assert lost.details["spool"] == "gone"
    assert lost.details["since"] == SHIPPED
    assert lost.details["heard"] == HEARD < lost.details["until"] < abandoned.time
    assert lost.details["requests_per_second"] == pytest.approx(10, rel=0.05)
    assert 10 <= lost.details["likely_at_most"] <= 40
    assert "may be missing in the ledger" in lost.reason


def test_a_spool_that_never_said_how_far_it_was_shipped_gets_no_number(ledger: Ledger) -> None:
    given_up(ledger, last=gone(until=0.0))
    (lost,) = told(ledger, "spool-lost")
    assert lost.details["likely_at_most"] is None
    assert "its start" in lost.reason
    assert "about" not in lost.reason


def test_it_is_told_once_whoever_watches(ledger: Ledger) -> None:
    clocks, keeper = given_up(ledger, last=gone())
    other = clocks.keeper(ledger)
    for _ in range(3):
        clocks.pass_time(LOOK_SECONDS)
        ship(ledger, [], [], spool("replica", clocks.wall))
        keeper.turn()
        other.turn()
    assert len(told(ledger, "spool-lost")) == 1
    assert told(ledger, "spool-found") == []


def test_a_keeper_killed_after_it_gave_a_spool_up_is_finished_by_the_next(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("watchkeeper.drift.keep.LostTails.turn", lambda *_: None)
        clocks, _ = given_up(ledger, last=gone())
    assert told(ledger, "spool-lost") == []
    clocks.keeper(ledger).turn()
    assert len(told(ledger, "spool-lost")) == 1


def test_what_comes_back_is_no_longer_lost(ledger: Ledger) -> None:
    clocks, keeper = given_up(ledger, last=gone())
    back = clocks.wall
    # It was only cut off, and is drained and closed before anybody looks again.
    closed = SpoolState("gone", MODEL, 1, back, closed=True, seen=back)
    ship(ledger, [], [], closed)
    clocks.pass_time(LOOK_SECONDS)
    keeper.turn()
    (found,) = told(ledger, "spool-found")
    assert found.details == {"spool": "gone", "seen": back}


def test_a_spool_that_was_drained_is_never_lost(ledger: Ledger) -> None:
    clocks = Clocks()
    keeper = clocks.keeper(ledger)
    ship(ledger, [], [], msgspec.structs.replace(gone(), closed=True))
    for _ in range(8):
        keeper.turn()
        clocks.pass_time(LOOK_SECONDS)
    assert history(ledger, MODEL) == []
