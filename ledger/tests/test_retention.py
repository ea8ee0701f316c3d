"""Retention by age and by count, and what it does not remove."""

from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from samples import DAY, NOW, failed_attempt, label, prediction, remove_all, row_counts, spool
from sqlalchemy import Select, event

from watchkeeper.core.drift_report import DriftReport, ReportWindow
from watchkeeper.core.events import (
    Event,
    Promoted,
    RolloutStarted,
    Watched,
)
from watchkeeper.core.policies import RetentionPolicy
from watchkeeper.core.record import LabelRecord
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.count_limit import CountLimit
from watchkeeper.ledger.episodes import Episode, save_episode
from watchkeeper.ledger.events import emit, history
from watchkeeper.ledger.gaps import StoredGap, count_gaps
from watchkeeper.ledger.observations import observations
from watchkeeper.ledger.records import store_records
from watchkeeper.ledger.reports import reports, save_report
from watchkeeper.ledger.retention import (
    REPORTS_RETAINED,
    RemovedRows,
    emit_removal_events,
    remove_batch,
    retention_cutoff,
)

WATCHED = Watched(verdict="pass")


def test_rows_older_than_the_policy_are_removed(ledger: Ledger) -> None:
    batch = [prediction(n, NOW - n * DAY / 10) for n in range(1000)]
    lines = [attempt for one in batch for attempt in (failed_attempt(one), one)]
    old_gap = StoredGap("s", 1, 1, "m", 1, "lost", "", 7, NOW - 95 * DAY, NOW - 95 * DAY)
    gaps = [old_gap, msgspec.structs.replace(old_gap, position=2, kind="shed", until=NOW, count=2)]
    lonely = LabelRecord("f" * 32, 0, "m", 1, 1.0, NOW - 95 * DAY, "test")
    store_records(ledger, lines, [*(label(p) for p in batch), lonely], spool(NOW), gaps)
    other = msgspec.structs.replace(prediction(5000), model="other")
    store_records(ledger, [other], [], spool(NOW))
    before = retention_cutoff(ledger, "m", RetentionPolicy(), NOW, None)
    assert before == NOW - 90 * DAY
    remove_all(ledger, before)
    assert row_counts(ledger) == {"predictions": 902, "superseded": 901, "labels": 901}
    assert min(o.time for o in observations(ledger, "m", 1, since=0.0)) == before
    assert len(observations(ledger, "other", 1, since=0.0)) == 1
    assert count_gaps(ledger, "m") == {"lost": 0, "shed": 2}


def test_only_the_newest_predictions_stay(ledger: Ledger) -> None:
    store_records(ledger, [prediction(n, float(n)) for n in range(1500)], [], spool(2000.0))
    policy = RetentionPolicy(predictions=1000)
    before = retention_cutoff(
        ledger, "m", policy, 2000.0, CountLimit(ledger, "m", 1000).oldest_retained(2000.0)
    )
    remove_all(ledger, before)
    assert [o.time for o in observations(ledger, "m", 1, since=0.0)] == list(range(500, 1500))


@pytest.mark.parametrize("maximum", [1, 7, 50, 1000])
def test_the_count_limit_reads_only_new_rows(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, maximum: int
) -> None:
    monkeypatch.setattr("watchkeeper.ledger.count_limit.STEP_ROWS", 20)
    limit = CountLimit(ledger, "m", maximum)
    stepped: list[int] = []

    @event.listens_for(ledger.engine, "before_execute")
    def on_execute(_c: object, query: object, _m: object, _p: object, _o: object) -> None:
        if isinstance(query, Select) and query._offset_clause is not None:
            stepped.append(query._offset_clause.value)

    number = 0
    for grown in (0, 3, 45, 0, 1, 80, 30, 500, 20):
        batch = [prediction(number + n, float(number + n)) for n in range(grown)]
        store_records(ledger, batch, [], spool(2000.0))
        number += grown
        assert limit.oldest_retained(number - 0.5) == (
            number - maximum if number >= maximum else None
        )
    assert sum(stepped) <= maximum + 2 * number
    store_records(ledger, [prediction(5000, 5.5)], [], spool(2000.0))
    assert limit.oldest_retained(number + DAY) == (number - maximum if number >= maximum else None)


def test_predictions_with_the_same_time_stay_or_go_together(ledger: Ledger) -> None:
    limit = CountLimit(ledger, "m", 10)
    for turn in range(6):
        store_records(
            ledger, [prediction(10 * turn + n, float(turn)) for n in range(4)], [], spool(2000.0)
        )
        edge = limit.oldest_retained(float(turn))
        if edge is not None:
            assert len(observations(ledger, "m", 1, since=edge)) >= 10


def test_rows_that_an_open_episode_or_a_rollout_needs_stay(ledger: Ledger) -> None:
    policy = RetentionPolicy()
    old = NOW - 200 * DAY
    episode = Episode("e", "m", 1, "waiting-for-labels", old, old, old, 0, "drift")
    save_episode(ledger, episode)
    assert retention_cutoff(ledger, "m", policy, NOW, None) == old
    save_episode(ledger, msgspec.structs.replace(episode, state="promoted"))
    assert retention_cutoff(ledger, "m", policy, NOW, None) == NOW - 90 * DAY
    started = f"{old:.3f}"
    emit(ledger, Event(f"m/v2/begun/{started}", "m", 2, old, "why", RolloutStarted(stable=1)))
    emit(ledger, Event(f"m/v2/promoted/{started}", "m", 2, old + DAY, "why", Promoted()))
    assert retention_cutoff(ledger, "m", policy, NOW, None) == old - 60.0
    emit(ledger, Event(f"m/v2/watched/{started}", "m", 2, old + 2 * DAY, "why", WATCHED))
    assert retention_cutoff(ledger, "m", policy, NOW, None) == NOW - 90 * DAY


def test_each_day_of_removals_has_one_event(
    ledger: Ledger,
) -> None:
    store_records(ledger, [prediction(n, n) for n in range(500)], [], spool(NOW))
    assert remove_batch(ledger, "m", 1000.0, NOW) == RemovedRows(predictions=200)
    remove_all(ledger, 1000.0)
    policy = RetentionPolicy()
    emit_removal_events(ledger, "m", policy, NOW + 3600)
    assert history(ledger, "m") == []
    for later in (DAY, DAY + 1, 2 * DAY):
        emit_removal_events(ledger, "m", policy, NOW + later)
    (removed,) = history(ledger, "m")
    assert removed.kind == "retention"
    assert removed.details.predictions == 500
    assert removed.details.policy == {"days": 90.0, "predictions": 5_000_000}


def test_the_newest_reports_stay(ledger: Ledger) -> None:
    for n in range(REPORTS_RETAINED + 50):
        report = DriftReport(verdict="clean", reason="", window=ReportWindow(float(n), n + 1.0))
        save_report(ledger, "m", 1, report)
    remove_all(ledger, NOW)
    assert len(reports(ledger, "m", 1, limit=1000)) == REPORTS_RETAINED
    assert reports(ledger, "m", 1, limit=1)[0].window.end == REPORTS_RETAINED + 50.0
    assert [r.window.end for r in reports(ledger, "m", 1, limit=1, until=100.0)] == [100.0]


def test_two_sidecars_remove_each_row_once(ledger: Ledger, database_url: str) -> None:
    batch = [prediction(n, n) for n in range(1000)]
    store_records(ledger, [line for p in batch for line in (failed_attempt(p), p)], [], spool(NOW))
    other = Ledger(database_url)
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(lambda one: removed_rows(one, NOW), (ledger, other)))
    other.close()
    assert row_counts(ledger) == {"predictions": 0, "superseded": 0, "labels": 0}
    assert sum(removed.predictions for part in parts for removed in part) == 1000
    emit_removal_events(ledger, "m", RetentionPolicy(), NOW + DAY)
    (removed,) = history(ledger, "m")
    assert (removed.details.predictions, removed.details.superseded) == (1000, 1000)


def removed_rows(ledger: Ledger, before: float) -> list[RemovedRows]:
    """Remove until all is gone, also what another one has in hand."""
    removed = []
    while any(row_counts(ledger).values()):
        removed.append(remove_batch(ledger, "m", before, NOW))
    return removed
