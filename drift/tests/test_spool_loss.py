"""A pod that is deleted by force loses the records that it has not shipped: there is an event."""

import msgspec
import pytest
from pump import MODEL, predictions, rows
from test_retention import NOW, Clocks, spool

from watchkeeper.core.events import Event, EventDetails, SpoolAbandoned, SpoolFound, SpoolLost
from watchkeeper.drift.retention import CHECK_SECONDS, Retention
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import history
from watchkeeper.ledger.records import store_records
from watchkeeper.ledger.spools import SpoolState

SHIPPED, SEEN = NOW - 2.0, NOW - 1.0


def events(ledger: Ledger, kind: type[EventDetails]) -> list[Event]:
    return history(ledger, MODEL, kind=kind)


def abandon(ledger: Ledger, *, last: SpoolState) -> tuple[Clocks, Retention]:
    """Run retention until the spool is abandoned, while the sidecar of a replica writes."""
    clocks = Clocks()
    retention = clocks.retention(ledger)
    store_records(ledger, [], [], last)
    while not events(ledger, SpoolAbandoned):
        store_records(ledger, [], [], spool("replica", clocks.wall))
        retention.run_once()
        assert clocks.wall < NOW + 3600
        clocks.pass_time(CHECK_SECONDS)
    return clocks, retention


def lost_spool(until: float = SHIPPED) -> SpoolState:
    return SpoolState("lost", MODEL, 1, until, seen=SEEN)


def test_the_event_names_the_interval_whose_records_may_be_missing(ledger: Ledger) -> None:
    requests = [  # ten per second, up to the end
        msgspec.structs.replace(p, time=SHIPPED - n / 10)
        for n, p in enumerate(predictions(rows(700, 1)))
    ]
    store_records(ledger, requests, [], spool("replica", NOW))
    abandon(ledger, last=lost_spool())
    (lost,) = events(ledger, SpoolLost)
    (abandoned,) = events(ledger, SpoolAbandoned)
    assert lost.version == 1
    assert lost.details.spool == "lost"
    assert lost.details.since == SHIPPED
    assert lost.details.heard == SEEN < lost.details.until < abandoned.time
    assert lost.details.requests_per_second == pytest.approx(10, rel=0.05)
    assert 10 <= lost.details.likely_at_most <= 40
    assert "may be missing in the ledger" in lost.reason


def test_there_is_no_estimate_for_a_spool_that_was_never_shipped(ledger: Ledger) -> None:
    abandon(ledger, last=lost_spool(until=0.0))
    (lost,) = events(ledger, SpoolLost)
    assert lost.details.likely_at_most is None
    assert "its start" in lost.reason
    assert "about" not in lost.reason


def test_several_sidecars_emit_the_event_once(ledger: Ledger) -> None:
    clocks, retention = abandon(ledger, last=lost_spool())
    other = clocks.retention(ledger)
    for _ in range(3):
        clocks.pass_time(CHECK_SECONDS)
        store_records(ledger, [], [], spool("replica", clocks.wall))
        retention.run_once()
        other.run_once()
    assert len(events(ledger, SpoolLost)) == 1
    assert events(ledger, SpoolFound) == []


def test_the_next_sidecar_emits_the_event_if_one_was_killed_after_abandoning(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("watchkeeper.drift.retention.SpoolLossReporter.report", lambda *_: None)
        clocks, _ = abandon(ledger, last=lost_spool())
    assert events(ledger, SpoolLost) == []
    clocks.retention(ledger).run_once()
    assert len(events(ledger, SpoolLost)) == 1


def test_a_spool_that_is_shipped_again_is_found(ledger: Ledger) -> None:
    clocks, retention = abandon(ledger, last=lost_spool())
    back = clocks.wall
    # The pod was only disconnected. Its spool is drained and closed before the next check.
    closed = SpoolState("lost", MODEL, 1, back, closed=True, seen=back)
    store_records(ledger, [], [], closed)
    clocks.pass_time(CHECK_SECONDS)
    retention.run_once()
    (found,) = events(ledger, SpoolFound)
    assert found.details == SpoolFound(spool="lost", seen=back)


def test_a_drained_spool_is_never_lost(ledger: Ledger) -> None:
    clocks = Clocks()
    retention = clocks.retention(ledger)
    store_records(ledger, [], [], msgspec.structs.replace(lost_spool(), closed=True))
    for _ in range(8):
        retention.run_once()
        clocks.pass_time(CHECK_SECONDS)
    assert history(ledger, MODEL) == []
