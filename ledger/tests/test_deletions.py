"""Deletion of everything about a subject on request."""

import time

import msgspec
import pytest
from databases import Server
from samples import (
    FAILED,
    NOW,
    failed_attempt,
    label,
    prediction,
    remove_all,
    row_counts,
    spool,
)
from sqlalchemy import select, update

from watchkeeper.core.events import (
    LabelContradicted,
    SubjectForgotten,
)
from watchkeeper.ledger import Ledger, migrate, tables
from watchkeeper.ledger.counts import count_labelled_rows
from watchkeeper.ledger.deletions import (
    deletions,
    drop_forgotten,
    process_deletions,
    request_deletion,
)
from watchkeeper.ledger.events import history
from watchkeeper.ledger.labels import store_labels
from watchkeeper.ledger.observations import labelled_rows, observations
from watchkeeper.ledger.records import store_records


def process_all(ledger: Ledger, now: float = NOW) -> None:
    while process_deletions(ledger, "m", now):
        pass


def test_everything_of_one_subject_is_deleted(ledger: Ledger) -> None:
    batch = [prediction(n, n, subject="Ann" if n % 2 else "ann") for n in range(900)]
    lines = [attempt for one in batch for attempt in (failed_attempt(one), one)]
    store_records(ledger, lines, [label(p) for p in batch], spool(2000.0))
    store_records(ledger, [], [label(batch[1], 0.0), label(batch[2], 0.0)], spool(2000.0))
    assert len(history(ledger, "m", kind=LabelContradicted)) == 2
    deletion = request_deletion(ledger, "m", "Ann", 1000.0)
    process_all(ledger)
    assert row_counts(ledger) == {"predictions": 450, "superseded": 450, "labels": 450}
    assert {row.prediction for row in labelled_rows(ledger, "m", since=0)} == {
        p.id for p in batch[::2]
    }
    (contradicted,) = history(ledger, "m", kind=LabelContradicted)
    assert contradicted.details.prediction == batch[2].id
    (forgotten,) = history(ledger, "m", kind=SubjectForgotten)
    counts = {"predictions": 450, "superseded": 450, "labels": 450}
    assert forgotten.details == SubjectForgotten(requested=1000.0, **counts)
    assert "Ann" not in msgspec.json.encode(forgotten).decode()
    (done,) = deletions(ledger, "m")
    assert (done.id, done.subject, done.finished) == (deletion.id, "", NOW)


def test_late_records_of_a_forgotten_subject_are_dropped_and_newer_ones_stored(
    ledger: Ledger,
) -> None:
    old, new = prediction(1, 10.0, subject="press-7"), prediction(2, 30.0, subject="press-7")
    store_records(ledger, [], [], spool(5.0))
    request_deletion(ledger, "m", "press-7", 20.0)
    process_all(ledger)
    assert deletions(ledger, "m")[0].finished is None, "the spool may contain more of them"
    store_records(ledger, [old, failed_attempt(old), new], [label(old), label(new)], spool(50.0))
    assert row_counts(ledger) == {"predictions": 1, "superseded": 0, "labels": 1}
    process_all(ledger)
    assert deletions(ledger, "m")[0].finished is None, "slow requests are recorded late"
    store_records(ledger, [], [], spool(81.0))
    store_records(ledger, [], [], spool(0.0, "gone", closed=True))
    process_all(ledger)
    assert deletions(ledger, "m")[0].finished == NOW
    assert [o.time for o in observations(ledger, "m", 1, since=0.0)] == [30.0]
    assert count_labelled_rows(ledger, "m", since=0.0, truth=FAILED)[1][1.0] == 1
    process_all(ledger)
    assert len(history(ledger, "m", kind=SubjectForgotten)) == 1


def forget(ledger: Ledger, subject: str, until: float) -> None:
    """Forget a subject to the end: no spool is expected to bring anything any more."""
    request_deletion(ledger, "m", subject, until)
    process_all(ledger)
    assert deletions(ledger, "m")[-1].finished is not None


def test_records_of_an_abandoned_spool_do_not_restore_a_forgotten_subject(
    ledger: Ledger,
) -> None:
    old, new = prediction(1, 10.0, subject="Ann"), prediction(2, 30.0, subject="Ann")
    other = prediction(3, 10.0, subject="ann")
    unread = prediction(4, 10.0, subject="Ann", attempt=3)
    nameless = prediction(4, 10.0, status="UNAVAILABLE")  # another attempt at it, that was not read
    store_records(ledger, [nameless], [], spool(5.0, closed=True))
    forget(ledger, "Ann", 20.0)
    for _ in range(2):
        lines = [old, failed_attempt(old), new, other, unread]
        store_records(ledger, lines, [label(p) for p in lines], spool(50.0))
    seen = {o.id for o in observations(ledger, "m", 1, since=0.0, superseded=True)}
    assert seen == {new.id, other.id}
    assert row_counts(ledger) == {"predictions": 2, "superseded": 0, "labels": 2}
    assert "Ann" not in {one.subject for one in deletions(ledger, "m")}


def test_deletions_of_an_earlier_release_stay_in_force(ledger: Ledger, database_url: str) -> None:
    request_deletion(ledger, "m", "Ann", 20.0)
    with ledger.write() as connection:
        connection.execute(update(tables.deletions).values(digest=""))
        tables.forgotten.drop(connection)
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0002'")
    migrate(database_url)
    process_all(ledger)
    store_records(ledger, [prediction(1, 10.0, subject="Ann")], [], spool(90.0))
    assert row_counts(ledger)["predictions"] == 0


def test_late_labels_of_a_forgotten_subject_are_not_stored(ledger: Ledger) -> None:
    stored, dropped = prediction(1, 10.0, subject="Ann"), prediction(2, 11.0, subject="Ann")
    early, other = prediction(3, 12.0, subject="Ann"), prediction(4, 13.0)
    store_records(ledger, [stored], [label(early), label(early, 0.0)], spool(15.0, closed=True))
    forget(ledger, "Ann", 20.0)
    store_records(ledger, [dropped, early], [], spool(16.0))
    for one in (stored, dropped, early, other):
        store_records(ledger, [], [label(one)], spool(90.0))
    with ledger.read() as connection:
        found = connection.execute(select(tables.labels.c.prediction)).scalars().all()
    assert found == [other.id]
    assert history(ledger, "m", kind=LabelContradicted) == []


def test_a_label_stored_during_the_deletion_of_its_request_is_deleted(
    server: Server,
) -> None:
    url = server.create()
    migrate(url)
    ledger = Ledger(url)
    one = prediction(1, 10.0, subject="Ann")
    store_records(ledger, [one], [], spool(90.0))
    with ledger.write() as connection:
        assert drop_forgotten(connection, "m", [], [label(one)]).labels == [label(one)]
        forget(ledger, "Ann", 20.0)
        store_labels(connection, [label(one)])
    assert row_counts(ledger)["labels"] == 1
    process_all(ledger)
    assert row_counts(ledger)["labels"] == 0
    ledger.close()


def test_digests_and_ids_of_forgotten_subjects_are_removed_by_age(ledger: Ledger) -> None:
    store_records(ledger, [prediction(1, 10.0, subject="Ann")], [], spool(90.0, closed=True))
    forget(ledger, "Ann", 20.0)

    def known() -> list[object]:
        with ledger.read() as connection:
            digests = connection.execute(select(tables.deletions.c.digest)).scalars()
            ids = connection.execute(select(tables.forgotten.c.id)).scalars()
            return [*filter(None, digests), *ids]

    remove_all(ledger, NOW - 1)
    assert len(known()) == 2
    remove_all(ledger, 10 * time.time())
    assert known() == []


def test_invalid_subjects_are_refused(ledger: Ledger) -> None:
    for wrong in ("", "x" * 256):
        with pytest.raises(ValueError, match="1 to 255 characters"):
            request_deletion(ledger, "m", wrong)
