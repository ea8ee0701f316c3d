"""What the ledger lets go of: by age, by count, and because somebody asked; and what it keeps."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from databases import Server
from sqlalchemy import Select, event, func, select, update

from watchkeeper.contracts.policies import RetentionPolicy
from watchkeeper.contracts.record import OK, LabelRecord, Prediction
from watchkeeper.ledger import Ledger, migrate, tables
from watchkeeper.ledger.deletions import (
    carry_out,
    deletions,
    request_deletion,
    without_forgotten,
)
from watchkeeper.ledger.episodes import Episode, save_episode
from watchkeeper.ledger.events import Event, emit, history
from watchkeeper.ledger.gaps import StoredGap, count_gaps
from watchkeeper.ledger.newest import Newest
from watchkeeper.ledger.observations import count_labels, labelled_rows, observations
from watchkeeper.ledger.reports import DriftReport, reports, save_report
from watchkeeper.ledger.retention import KEPT_REPORTS, Removed, cut, remove_batch, tell_removals
from watchkeeper.ledger.spools import abandon, open_spools
from watchkeeper.ledger.store import SpoolState, ship, shipped_until, store_labels

DAY = 86400.0
NOW = 1000 * DAY


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    migrate(database_url)
    opened = Ledger(database_url)
    yield opened
    opened.close()


def made(number: int, time: float = 0.0, **changes: object) -> Prediction:
    one = Prediction(
        id=f"{number:032x}",
        attempt=2,
        model="m",
        version=1,
        protocol="http",
        client="test",
        time=time,
        latency=0.001,
        status=OK,
        rows=1,
        inputs={"x": [1.0]},
        outputs={"p": [0.1]},
    )
    return msgspec.structs.replace(one, **changes)


def failed(one: Prediction) -> Prediction:
    return msgspec.structs.replace(one, attempt=1, status="UNAVAILABLE", version=2)


def label(one: Prediction, value: float = 1.0) -> LabelRecord:
    return LabelRecord(one.id, 0, "m", 1, value, one.time + value, "test")


def spool(until: float, name: str = "s", **changes: object) -> SpoolState:
    return msgspec.structs.replace(SpoolState(name, "m", 1, until), **changes)


def sizes(ledger: Ledger) -> dict[str, int]:
    with ledger.read() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (tables.predictions, tables.superseded, tables.labels)
        }


def carried_out(ledger: Ledger, now: float = NOW) -> None:
    while carry_out(ledger, "m", now):
        pass


def test_everything_of_a_subject_goes_and_nothing_of_another(ledger: Ledger) -> None:
    batch = [made(n, n, subject="Ann" if n % 2 else "ann") for n in range(900)]
    lines = [attempt for one in batch for attempt in (failed(one), one)]
    ship(ledger, lines, [label(p) for p in batch], spool(2000.0))
    ship(ledger, [], [label(batch[1], 5.0), label(batch[2], 5.0)], spool(2000.0))
    assert len(history(ledger, "m", kind="label-contradicted")) == 2
    asked = request_deletion(ledger, "m", "Ann", 1000.0)
    carried_out(ledger)
    assert sizes(ledger) == {"predictions": 450, "superseded": 450, "labels": 450}
    assert {row.prediction for row in labelled_rows(ledger, "m", since=0)} == {
        p.id for p in batch[::2]
    }
    (contradicted,) = history(ledger, "m", kind="label-contradicted")
    assert contradicted.details["prediction"] == batch[2].id
    (told,) = history(ledger, "m", kind="forgotten")
    counts = {"predictions": 450, "superseded": 450, "labels": 450}
    assert told.details == {"requested": 1000.0, **counts}
    assert "Ann" not in msgspec.json.encode(told).decode()
    (done,) = deletions(ledger, "m")
    assert (done.id, done.subject, done.finished) == (asked.id, "", NOW)


def test_what_comes_late_of_a_forgotten_subject_is_dropped_and_what_is_newer_is_kept(
    ledger: Ledger,
) -> None:
    old, new = made(1, 10.0, subject="press-7"), made(2, 30.0, subject="press-7")
    ship(ledger, [], [], spool(5.0))
    request_deletion(ledger, "m", "press-7", 20.0)
    carried_out(ledger)
    assert deletions(ledger, "m")[0].finished is None, "a spool may still hold some"
    ship(ledger, [old, failed(old), new], [label(old), label(new)], spool(50.0))
    assert sizes(ledger) == {"predictions": 1, "superseded": 0, "labels": 1}
    carried_out(ledger)
    assert deletions(ledger, "m")[0].finished is None, "slow requests are recorded late"
    ship(ledger, [], [], spool(81.0))
    ship(ledger, [], [], spool(0.0, "gone", closed=True))
    carried_out(ledger)
    assert deletions(ledger, "m")[0].finished == NOW
    assert [o.time for o in observations(ledger, "m", 1, since=0.0)] == [30.0]
    assert count_labels(ledger, "m", since=0.0) == (1, 1)
    carried_out(ledger)
    assert len(history(ledger, "m", kind="forgotten")) == 1


def forgotten(ledger: Ledger, subject: str, until: float) -> None:
    """Forget a subject to the end: no spool is expected to bring anything any more."""
    request_deletion(ledger, "m", subject, until)
    carried_out(ledger)
    assert deletions(ledger, "m")[-1].finished is not None


def test_a_forgotten_subject_does_not_come_back_with_a_spool_that_was_given_up(
    ledger: Ledger,
) -> None:
    old, new = made(1, 10.0, subject="Ann"), made(2, 30.0, subject="Ann")
    other = made(3, 10.0, subject="ann")
    unread = made(4, 10.0, subject="Ann", attempt=3)
    nameless = made(4, 10.0, status="UNAVAILABLE")  # another attempt at it, that was not read
    ship(ledger, [nameless], [], spool(5.0, closed=True))
    forgotten(ledger, "Ann", 20.0)
    for _ in range(2):
        lines = [old, failed(old), new, other, unread]
        ship(ledger, lines, [label(p) for p in lines], spool(50.0))
    seen = {o.id for o in observations(ledger, "m", 1, since=0.0, superseded=True)}
    assert seen == {new.id, other.id}
    assert sizes(ledger) == {"predictions": 2, "superseded": 0, "labels": 2}
    assert "Ann" not in {one.subject for one in deletions(ledger, "m")}


def test_what_an_earlier_release_was_asked_to_forget_stays_forgotten_too(
    ledger: Ledger, database_url: str
) -> None:
    request_deletion(ledger, "m", "Ann", 20.0)
    with ledger.begin() as connection:
        connection.execute(update(tables.deletions).values(digest=""))
        tables.forgotten.drop(connection)
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0002'")
    migrate(database_url)
    carried_out(ledger)
    ship(ledger, [made(1, 10.0, subject="Ann")], [], spool(90.0))
    assert sizes(ledger)["predictions"] == 0


def test_late_labels_of_what_is_forgotten_are_not_stored(ledger: Ledger) -> None:
    stored, dropped = made(1, 10.0, subject="Ann"), made(2, 11.0, subject="Ann")
    early, other = made(3, 12.0, subject="Ann"), made(4, 13.0)
    ship(ledger, [stored], [label(early), label(early, 0.0)], spool(15.0, closed=True))
    forgotten(ledger, "Ann", 20.0)
    ship(ledger, [dropped, early], [], spool(16.0))
    for one in (stored, dropped, early, other):
        ship(ledger, [], [label(one)], spool(90.0))
    with ledger.read() as connection:
        found = connection.execute(select(tables.labels.c.prediction)).scalars().all()
    assert found == [other.id]
    assert history(ledger, "m", kind="label-contradicted") == []


def test_a_label_that_is_stored_while_its_request_is_forgotten_goes_too(
    server: Server,
) -> None:
    url = server.create()
    migrate(url)
    ledger = Ledger(url)
    one = made(1, 10.0, subject="Ann")
    ship(ledger, [one], [], spool(90.0))
    with ledger.begin() as connection:
        assert without_forgotten(connection, "m", [], [label(one)])[1] == [label(one)]
        forgotten(ledger, "Ann", 20.0)
        store_labels(connection, [label(one)])
    assert sizes(ledger)["labels"] == 1
    carried_out(ledger)
    assert sizes(ledger)["labels"] == 0
    ledger.close()


def test_what_is_known_of_the_forgotten_goes_with_everything_of_that_age(ledger: Ledger) -> None:
    ship(ledger, [made(1, 10.0, subject="Ann")], [], spool(90.0, closed=True))
    forgotten(ledger, "Ann", 20.0)

    def known() -> list[object]:
        with ledger.read() as connection:
            digests = connection.execute(select(tables.deletions.c.digest)).scalars()
            ids = connection.execute(select(tables.forgotten.c.id)).scalars()
            return [*filter(None, digests), *ids]

    removed_all(ledger, NOW - 1)
    assert len(known()) == 2
    removed_all(ledger, 10 * time.time())
    assert known() == []


def test_what_can_be_no_subject_is_refused(ledger: Ledger) -> None:
    for wrong in ("", "x" * 256):
        with pytest.raises(ValueError, match="1 to 255 characters"):
            request_deletion(ledger, "m", wrong)


def removed_all(ledger: Ledger, before: float, now: float = NOW) -> None:
    while remove_batch(ledger, "m", before, now).any():
        pass


def test_what_is_older_than_the_policy_goes_with_all_that_belongs_to_it(ledger: Ledger) -> None:
    batch = [made(n, NOW - n * DAY / 10) for n in range(1000)]
    lines = [attempt for one in batch for attempt in (failed(one), one)]
    old_gap = StoredGap("s", 1, 1, "m", 1, "lost", "", 7, NOW - 95 * DAY, NOW - 95 * DAY)
    gaps = [old_gap, msgspec.structs.replace(old_gap, position=2, kind="shed", until=NOW, count=2)]
    lonely = LabelRecord("f" * 32, 0, "m", 1, 1.0, NOW - 95 * DAY, "test")
    ship(ledger, lines, [*(label(p) for p in batch), lonely], spool(NOW), gaps)
    other = msgspec.structs.replace(made(5000), model="other")
    ship(ledger, [other], [], spool(NOW))
    before = cut(ledger, "m", RetentionPolicy(), NOW, None)
    assert before == NOW - 90 * DAY
    removed_all(ledger, before)
    assert sizes(ledger) == {"predictions": 902, "superseded": 901, "labels": 901}
    assert min(o.time for o in observations(ledger, "m", 1, since=0.0)) == before
    assert len(observations(ledger, "other", 1, since=0.0)) == 1
    assert count_gaps(ledger, "m") == {"lost": 0, "shed": 2}


def test_only_the_newest_are_kept_when_there_are_too_many(ledger: Ledger) -> None:
    ship(ledger, [made(n, float(n)) for n in range(1500)], [], spool(2000.0))
    policy = RetentionPolicy(predictions=1000)
    before = cut(ledger, "m", policy, 2000.0, Newest(ledger, "m", 1000).since(2000.0))
    removed_all(ledger, before)
    assert [o.time for o in observations(ledger, "m", 1, since=0.0)] == list(range(500, 1500))


@pytest.mark.parametrize("kept", [1, 7, 50, 1000])
def test_the_newest_are_followed_at_the_cost_of_what_is_new(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr("watchkeeper.ledger.newest.PART", 20)
    newest = Newest(ledger, "m", kept)
    stepped: list[int] = []

    @event.listens_for(ledger.engine, "before_execute")
    def on_execute(_c: object, query: object, _m: object, _p: object, _o: object) -> None:
        if isinstance(query, Select) and query._offset_clause is not None:
            stepped.append(query._offset_clause.value)

    number = 0
    for grown in (0, 3, 45, 0, 1, 80, 30, 500, 20):
        batch = [made(number + n, float(number + n)) for n in range(grown)]
        ship(ledger, batch, [], spool(2000.0))
        number += grown
        assert newest.since(number - 0.5) == (number - kept if number >= kept else None)
    assert sum(stepped) <= kept + 2 * number
    ship(ledger, [made(5000, 5.5)], [], spool(2000.0))
    assert newest.since(number + DAY) == (number - kept if number >= kept else None)


def test_predictions_of_the_same_time_are_kept_or_go_together(ledger: Ledger) -> None:
    newest = Newest(ledger, "m", 10)
    for turn in range(6):
        ship(ledger, [made(10 * turn + n, float(turn)) for n in range(4)], [], spool(2000.0))
        edge = newest.since(float(turn))
        if edge is not None:
            assert len(observations(ledger, "m", 1, since=edge)) >= 10


def test_what_an_open_episode_or_a_rollout_needs_is_kept_whatever_its_age(ledger: Ledger) -> None:
    policy = RetentionPolicy()
    old = NOW - 200 * DAY
    episode = Episode("e", "m", 1, "waiting-for-labels", old, old, old, 0, "drift")
    save_episode(ledger, episode)
    assert cut(ledger, "m", policy, NOW, None) == old
    save_episode(ledger, msgspec.structs.replace(episode, state="promoted"))
    assert cut(ledger, "m", policy, NOW, None) == NOW - 90 * DAY
    started = f"{old:.3f}"
    emit(ledger, Event(f"m/v2/begun/{started}", "m", 2, "begun", old, "why"))
    emit(ledger, Event(f"m/v2/promoted/{started}", "m", 2, "promoted", old + DAY, "why"))
    assert cut(ledger, "m", policy, NOW, None) == old - 60.0
    emit(ledger, Event(f"m/v2/watched/{started}", "m", 2, "watched", old + 2 * DAY, "why"))
    assert cut(ledger, "m", policy, NOW, None) == NOW - 90 * DAY


def test_a_day_is_told_once_when_it_is_over_however_often_batches_are_repeated(
    ledger: Ledger,
) -> None:
    ship(ledger, [made(n, n) for n in range(500)], [], spool(NOW))
    assert remove_batch(ledger, "m", 1000.0, NOW) == Removed(predictions=200)
    removed_all(ledger, 1000.0)
    policy = RetentionPolicy()
    tell_removals(ledger, "m", policy, NOW + 3600)
    assert history(ledger, "m") == []
    for later in (DAY, DAY + 1, 2 * DAY):
        tell_removals(ledger, "m", policy, NOW + later)
    (told,) = history(ledger, "m")
    assert told.kind == "retention"
    assert told.details["predictions"] == 500
    assert told.details["policy"] == {"days": 90.0, "predictions": 5_000_000}


def test_the_newest_reports_stay_whatever_their_age(ledger: Ledger) -> None:
    for n in range(KEPT_REPORTS + 50):
        save_report(ledger, DriftReport("m", 1, float(n), n + 1.0, False, {}))
    removed_all(ledger, NOW)
    assert len(reports(ledger, "m", 1, newest=1000)) == KEPT_REPORTS
    assert reports(ledger, "m", 1, newest=1)[0].window_end == KEPT_REPORTS + 50.0
    assert [r.window_end for r in reports(ledger, "m", 1, newest=1, until=100.0)] == [100.0]


def test_a_silent_spool_is_given_up_until_it_is_heard_again(ledger: Ledger) -> None:
    ship(ledger, [], [], spool(50.0, "dead", seen=51.0))
    ship(ledger, [], [], spool(90.0, "alive", seen=91.0))
    dead = next(s for s in open_spools(ledger, "m") if s.id == "dead")
    ship(ledger, [], [], spool(50.0, "dead", seen=52.0))
    assert not abandon(ledger, dead, NOW, 300.0), "there was news"
    dead = next(s for s in open_spools(ledger, "m") if s.id == "dead")
    assert abandon(ledger, dead, NOW, 300.0)
    assert shipped_until(ledger, "m", [1]) == 90.0
    (told,) = history(ledger, "m", kind="spool-abandoned")
    assert (told.version, told.details["shipped_until"]) == (1, 50.0)
    ship(ledger, [], [], spool(60.0, "dead", seen=99.0))
    assert shipped_until(ledger, "m", [1]) == 60.0


def test_two_keepers_at_once_remove_everything_and_count_it_once(
    ledger: Ledger, database_url: str
) -> None:
    batch = [made(n, n) for n in range(1000)]
    ship(ledger, [line for p in batch for line in (failed(p), p)], [], spool(NOW))
    other = Ledger(database_url)
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(lambda one: removed_of(one, NOW), (ledger, other)))
    other.close()
    assert sizes(ledger) == {"predictions": 0, "superseded": 0, "labels": 0}
    assert sum(removed.predictions for part in parts for removed in part) == 1000
    tell_removals(ledger, "m", RetentionPolicy(), NOW + DAY)
    (told,) = history(ledger, "m")
    assert (told.details["predictions"], told.details["superseded"]) == (1000, 1000)


def removed_of(ledger: Ledger, before: float) -> list[Removed]:
    """Remove until all is gone, also what another one has in hand."""
    removed = []
    while any(sizes(ledger).values()):
        removed.append(remove_batch(ledger, "m", before, NOW))
    return removed
