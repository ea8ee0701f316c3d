"""Forgetting a subject: what the ledger keeps of one machine or person is deleted on request.

A request is a row. It is carried out a batch at a time by the keeper, for everything up to the time
of the request: predictions, superseded attempts, labels and the events of contradictions between
them. Once every spool has been shipped past that time nothing more is expected: then an event tells
the counts, and the subject itself is blanked out in the request too. Rows that somebody needs are
no exception.

What comes later all the same, from a spool that was given up or as a label, is dropped when it
arrives: the ledger keeps a digest of the subject and the ids of its requests, for as long as it
keeps anything of that age.
"""

import hashlib
import time
import uuid
from collections.abc import Sequence
from functools import partial

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, select, update

from watchkeeper.contracts.record import LabelRecord, Prediction
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.database import Ledger
from watchkeeper.ledger.events import Event, emit_in
from watchkeeper.ledger.once import CHUNK, chunks, clean, in_one_transaction

SETTLE_SECONDS = 60.0  # a slow request may be recorded so long after its spool passed its time
CROSSING_SECONDS = 600.0  # longer than any transaction: two of them may have missed each other


class Deletion(msgspec.Struct, frozen=True):
    """A request to forget; counts are of what was found in the ledger, ``finished`` None while
    something may still come."""

    id: str
    model: str
    subject: str
    requested: float
    finished: float | None = None
    predictions: int = 0
    superseded: int = 0
    labels: int = 0


def request_deletion(
    ledger: Ledger, model: str, subject: str, now: float | None = None
) -> Deletion:
    """Ask for everything about a subject up to now to be deleted.

    Raises:
        ValueError: this can be no subject.
    """
    if not 0 < len(subject) <= 255:
        raise ValueError("a subject is a text of 1 to 255 characters")
    requested = time.time() if now is None else now
    deletion = Deletion(uuid.uuid4().hex, model, subject, requested)
    with ledger.begin() as connection:
        values = {**msgspec.structs.asdict(deletion), "digest": _digest(model, subject)}
        connection.execute(insert(t.deletions).values(**values))
    return deletion


def deletions(ledger: Ledger, model: str) -> list[Deletion]:
    """Return the requests for a model, oldest first; finished ones have no subject any more."""
    with ledger.read() as connection:
        return _asked(connection, t.deletions.c.model == model)


def _asked(connection: Connection, which: ColumnElement[bool]) -> list[Deletion]:
    d = t.deletions.c
    query = select(*(d[name] for name in Deletion.__struct_fields__)).where(which)
    rows = connection.execute(query.order_by(d.requested, d.id))
    return [Deletion(**row._mapping) for row in rows]


def without_forgotten(
    connection: Connection,
    model: str,
    predictions: Sequence[Prediction],
    labels: Sequence[LabelRecord],
) -> tuple[Sequence[Prediction], Sequence[LabelRecord]]:
    """Leave out what somebody has asked to forget before it arrived, however long before."""
    until = _forgotten_until(connection, model, {p.subject for p in predictions if p.subject})
    gone = {p.id for p in predictions if p.time <= until.get(p.subject, float("-inf"))}
    if gone:
        _forget_requests(connection, model, gone)
    gone |= _known_forgotten(connection, model, {p.id for p in predictions}, labels)
    if not gone:
        return predictions, labels
    return (
        [p for p in predictions if p.id not in gone],
        [label for label in labels if label.prediction not in gone],
    )


def _forgotten_until(connection: Connection, model: str, subjects: set[str]) -> dict[str, float]:
    """Return the time up to which each of these subjects is forgotten, if it is."""
    d = t.deletions.c
    digests = {_digest(model, subject): subject for subject in subjects}
    query = select(d.digest, func.max(d.requested)).where(d.model == model).group_by(d.digest)
    return {
        digests[digest]: requested
        for some in chunks(sorted(digests))
        for digest, requested in connection.execute(query.where(d.digest.in_(some)))
    }


def _known_forgotten(
    connection: Connection, model: str, requests: set[str], labels: Sequence[LabelRecord]
) -> set[str]:
    f = t.forgotten.c
    if connection.execute(select(f.id).where(f.model == model).limit(1)).first() is None:
        return set()
    query = select(f.id)
    return {
        found
        for some in chunks(sorted(requests | {label.prediction for label in labels}))
        for found in connection.execute(query.where(f.id.in_(some))).scalars()
    }


def _digest(model: str, subject: str) -> str:
    """Return what is kept of a subject that was forgotten: enough to know it again, no more.

    Whoever reads the database can find out by trying whether a name was forgotten.
    A key would not keep him from it: every sidecar needs it, so it would stand beside the digests.
    """
    return hashlib.sha256(f"{model}\0{clean(subject, 255)}".encode()).hexdigest()


def carry_out(ledger: Ledger, model: str, now: float, settle: float = SETTLE_SECONDS) -> bool:
    """Delete one batch of what is asked for; True when there may be more to delete at once."""
    d = t.deletions.c
    with ledger.read() as connection:
        waiting = _asked(connection, and_(d.model == model, d.finished.is_(None)))
        reach = _reach(connection, model)
        crossed = _crossed(connection, model, now)
    if crossed:
        in_one_transaction(ledger, partial(delete_labels, ids=crossed))
    for asked in waiting:
        if in_one_transaction(ledger, partial(_delete_batch, asked=asked)):
            return True
        if min(reach, now) > asked.requested + settle:
            in_one_transaction(ledger, partial(_finish, asked=asked, now=now))
    return False


def _crossed(connection: Connection, model: str, now: float) -> set[str]:
    """Return requests whose labels were stored while they were being forgotten."""
    f, label = t.forgotten.c, t.labels.c
    both = select(f.id).join_from(t.forgotten, t.labels, f.id == label.prediction).distinct()
    recent = both.where(f.model == model, f.time > now - CROSSING_SECONDS)
    return set(connection.execute(recent.limit(CHUNK)).scalars())


def _reach(connection: Connection, model: str) -> float:
    """Return the time up to which all open spools of a model have been shipped."""
    s = t.spools.c
    query = select(s.shipped_until).where(s.model == model, s.closed.is_(False))
    return min(connection.execute(query).scalars(), default=float("inf"))


def _delete_batch(connection: Connection, asked: Deletion) -> bool:
    ids: set[str] = set()
    for table in (t.predictions, t.superseded):
        c = table.c
        query = select(c.id).where(
            c.model == asked.model, c.subject == asked.subject, c.time <= asked.requested
        )
        ids |= set(connection.execute(query.limit(CHUNK)).scalars())
    if not ids:
        return False
    found = _forget_requests(connection, asked.model, ids)
    d = t.deletions.c
    counts = {name: d[name] + count for name, count in found.items()}
    connection.execute(update(t.deletions).where(d.id == asked.id).values(**counts))
    return True


def _forget_requests(connection: Connection, model: str, ids: set[str]) -> dict[str, int]:
    """Delete what there is of requests, remember that they are gone, and return the counts."""
    f = t.forgotten.c
    found = dict.fromkeys(("predictions", "superseded", "labels"), 0)
    for some in chunks(sorted(ids)):
        known = set(connection.execute(select(f.id).where(f.id.in_(some))).scalars())
        new = [{"id": each, "model": model, "time": time.time()} for each in some]
        if fresh := [row for row in new if row["id"] not in known]:
            connection.execute(insert(t.forgotten), fresh)
        for table in (t.predictions, t.superseded):
            gone = delete(table).where(table.c.id.in_(some))
            found[table.name] += connection.execute(gone).rowcount
        found["labels"] += delete_labels(connection, set(some))
    return found


def delete_labels(connection: Connection, ids: set[str]) -> int:
    """Delete the labels of requests, and what was told of contradictions between them."""
    label, e = t.labels.c, t.events.c
    query = select(label.prediction).where(label.prediction.in_(ids)).distinct()
    for request in list(connection.execute(query).scalars()):
        # Its events begin with its id; "0" is what follows "/".
        mine = and_(e.id > f"{request}/", e.id < f"{request}0")
        connection.execute(delete(t.events).where(mine, e.kind == "label-contradicted"))
    return connection.execute(delete(t.labels).where(label.prediction.in_(ids))).rowcount


def _finish(connection: Connection, asked: Deletion, now: float) -> None:
    d = t.deletions.c
    counts = connection.execute(
        select(d.predictions, d.superseded, d.labels).where(d.id == asked.id)
    ).one()
    told = dict(counts._mapping)
    emit_in(
        connection,
        Event(
            id=f"{asked.model}/forgotten/{asked.id}",
            model=asked.model,
            version=None,
            kind="forgotten",
            time=now,
            reason=f"{told['predictions']} predictions of one subject, {told['superseded']} other "
            f"attempts and {told['labels']} labels were deleted on request",
            details={"requested": asked.requested, **told},
        ),
    )
    connection.execute(update(t.deletions).where(d.id == asked.id).values(finished=now, subject=""))
