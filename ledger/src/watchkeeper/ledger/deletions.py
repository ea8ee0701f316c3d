"""Deletion on request: everything that the ledger has about one subject.

A request is a row. The sidecar that watches carries it out one batch at a time, for everything up
to the time of the request: predictions, superseded attempts, labels, and the events of
contradicting labels. It deletes also rows that an open episode or a rollout needs.

The request is finished when every spool is shipped past its time, because then nothing more is
expected. An event contains the numbers, and the subject is removed from the request as well.

Records may arrive even later: from a spool that was abandoned, or as a label. They are dropped. To
recognize them, the ledger has a digest of the subject and the ids of its requests, as long as it
has other rows of that age.
"""

import hashlib
import time
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, select, update

from watchkeeper.core.events import Event, LabelContradicted, SubjectForgotten, kind_of
from watchkeeper.core.record import LabelRecord, Prediction
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.database import Ledger
from watchkeeper.ledger.events import emit_in
from watchkeeper.ledger.idempotent_writes import CHUNK, chunks, fit_text, run_transaction

SUBJECT_LENGTH: Final = 255
SETTLE_SECONDS: Final = 60.0  # a slow request is recorded up to so long after its arrival
RACE_SECONDS: Final = 600.0  # longer than any transaction: two of them may not see each other


class Deletion(msgspec.Struct, frozen=True):
    """A request to delete everything about a subject.

    Attributes:
        id: The id of the request.
        model: The model.
        subject: The subject; empty after the request is finished.
        requested: When it was requested, in seconds since 1970. Later records are not deleted.
        finished: When it was finished; None while records may still arrive.
        predictions: The number of deleted predictions.
        superseded: The number of deleted superseded attempts.
        labels: The number of deleted labels.
    """

    id: str
    model: str
    subject: str
    requested: float
    finished: float | None = None
    predictions: int = 0
    superseded: int = 0
    labels: int = 0


class AcceptedRecords(msgspec.Struct, frozen=True):
    """The records of a batch that may be stored."""

    predictions: Sequence[Prediction]
    labels: Sequence[LabelRecord]


def request_deletion(
    ledger: Ledger, model: str, subject: str, now: float | None = None
) -> Deletion:
    """Request the deletion of everything about a subject up to now.

    Args:
        ledger: The ledger to write.
        model: The model.
        subject: The subject that requests name, 1 to 255 characters.
        now: The time of the request in seconds since 1970; the system's clock by default.

    Raises:
        ValueError: the subject is empty or too long.
    """
    if not 0 < len(subject) <= SUBJECT_LENGTH:
        raise ValueError(f"a subject has 1 to {SUBJECT_LENGTH} characters, this has {len(subject)}")
    requested = time.time() if now is None else now
    deletion = Deletion(uuid.uuid4().hex, model, subject, requested)
    with ledger.write() as connection:
        values = {**msgspec.structs.asdict(deletion), "digest": _digest(model, subject)}
        connection.execute(insert(t.deletions).values(**values))
    return deletion


def deletions(ledger: Ledger, model: str) -> list[Deletion]:
    """Return all requests for a model, oldest first."""
    with ledger.read() as connection:
        return _read(connection, t.deletions.c.model == model)


def _read(connection: Connection, condition: ColumnElement[bool]) -> list[Deletion]:
    d = t.deletions.c
    query = select(*(d[name] for name in Deletion.__struct_fields__)).where(condition)
    rows = connection.execute(query.order_by(d.requested, d.id))
    return [Deletion(**row._mapping) for row in rows]


def drop_forgotten(
    connection: Connection,
    model: str,
    predictions: Sequence[Prediction],
    labels: Sequence[LabelRecord],
) -> AcceptedRecords:
    """Drop the records that a request has covered before they arrived."""
    until = _forgotten_until(connection, model, {p.subject for p in predictions if p.subject})
    dropped = {p.id for p in predictions if p.time <= until.get(p.subject, float("-inf"))}
    if dropped:
        _forget_requests(connection, model, dropped)
    dropped |= _known_forgotten(connection, model, {p.id for p in predictions}, labels)
    if not dropped:
        return AcceptedRecords(predictions, labels)
    return AcceptedRecords(
        [p for p in predictions if p.id not in dropped],
        [label for label in labels if label.prediction not in dropped],
    )


def _forgotten_until(connection: Connection, model: str, subjects: set[str]) -> dict[str, float]:
    """Return for forgotten subjects the time of their last request."""
    d = t.deletions.c
    digests = {_digest(model, subject): subject for subject in subjects}
    query = select(d.digest, func.max(d.requested)).where(d.model == model).group_by(d.digest)
    return {
        digests[digest]: requested
        for chunk in chunks(sorted(digests))
        for digest, requested in connection.execute(query.where(d.digest.in_(chunk)))
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
        for chunk in chunks(sorted(requests | {label.prediction for label in labels}))
        for found in connection.execute(query.where(f.id.in_(chunk))).scalars()
    }


def _digest(model: str, subject: str) -> str:
    """Return the digest of a forgotten subject.

    It recognizes the subject and does not contain it. A reader of the database can test whether a
    guessed name was forgotten. A secret key would not prevent this: every sidecar needs the key,
    and has access to the database.
    """
    return hashlib.sha256(f"{model}\0{fit_text(subject, SUBJECT_LENGTH)}".encode()).hexdigest()


def process_deletions(
    ledger: Ledger, model: str, now: float, settle_seconds: float = SETTLE_SECONDS
) -> bool:
    """Delete one batch of rows, and finish the requests that are done.

    Returns:
        True if there may be more rows to delete; call again at once.

    Raises:
        SQLAlchemyError: the ledger does not answer; call again later.
    """
    d = t.deletions.c
    with ledger.read() as connection:
        pending = _read(connection, and_(d.model == model, d.finished.is_(None)))
        shipped = _shipped_until(connection, model)
        missed = _missed_labels(connection, model, now)
    if missed:
        run_transaction(ledger, partial(delete_labels, ids=missed))
    for deletion in pending:
        if run_transaction(ledger, partial(_delete_batch, deletion=deletion)):
            return True
        if min(shipped, now) > deletion.requested + settle_seconds:
            run_transaction(ledger, partial(_finish, deletion=deletion, now=now))
    return False


def _missed_labels(connection: Connection, model: str, now: float) -> set[str]:
    """Return requests whose labels were stored while another transaction deleted them."""
    f, label = t.forgotten.c, t.labels.c
    both = select(f.id).join_from(t.forgotten, t.labels, f.id == label.prediction).distinct()
    recent = both.where(f.model == model, f.time > now - RACE_SECONDS)
    return set(connection.execute(recent.limit(CHUNK)).scalars())


def _shipped_until(connection: Connection, model: str) -> float:
    """Return the time up to which all open spools of a model are shipped."""
    s = t.spools.c
    query = select(s.shipped_until).where(s.model == model, s.closed.is_(False))
    return min(connection.execute(query).scalars(), default=float("inf"))


def _delete_batch(connection: Connection, deletion: Deletion) -> bool:
    ids: set[str] = set()
    for table in (t.predictions, t.superseded):
        c = table.c
        query = select(c.id).where(
            c.model == deletion.model,
            c.subject == deletion.subject,
            c.time <= deletion.requested,
        )
        ids |= set(connection.execute(query.limit(CHUNK)).scalars())
    if not ids:
        return False
    deleted = _forget_requests(connection, deletion.model, ids)
    d = t.deletions.c
    sums = {name: d[name] + number for name, number in deleted.items()}
    connection.execute(update(t.deletions).where(d.id == deletion.id).values(**sums))
    return True


def _forget_requests(connection: Connection, model: str, ids: set[str]) -> dict[str, int]:
    """Delete all rows of some requests and store their ids; return the numbers by table."""
    f = t.forgotten.c
    deleted = dict.fromkeys(("predictions", "superseded", "labels"), 0)
    for chunk in chunks(sorted(ids)):
        known = set(connection.execute(select(f.id).where(f.id.in_(chunk))).scalars())
        new = [{"id": each, "model": model, "time": time.time()} for each in chunk]
        if missing := [row for row in new if row["id"] not in known]:
            connection.execute(insert(t.forgotten), missing)
        for table in (t.predictions, t.superseded):
            rows = delete(table).where(table.c.id.in_(chunk))
            deleted[table.name] += connection.execute(rows).rowcount
        deleted["labels"] += delete_labels(connection, set(chunk))
    return deleted


def delete_labels(connection: Connection, ids: set[str]) -> int:
    """Delete the labels of some requests, and the events of contradictions between them.

    Returns:
        The number of deleted labels.
    """
    label, e = t.labels.c, t.events.c
    query = select(label.prediction).where(label.prediction.in_(ids)).distinct()
    for request in list(connection.execute(query).scalars()):
        # The ids of its events begin with its id and "/". The next character after "/" is "0".
        of_request = and_(e.id > f"{request}/", e.id < f"{request}0")
        contradiction = e.kind == kind_of(LabelContradicted)
        connection.execute(delete(t.events).where(of_request, contradiction))
    return connection.execute(delete(t.labels).where(label.prediction.in_(ids))).rowcount


def _finish(connection: Connection, deletion: Deletion, now: float) -> None:
    d = t.deletions.c
    row = connection.execute(
        select(d.predictions, d.superseded, d.labels).where(d.id == deletion.id)
    ).one()
    emit_in(
        connection,
        Event(
            id=f"{deletion.model}/forgotten/{deletion.id}",
            model=deletion.model,
            version=None,
            time=now,
            reason=f"deleted on request: {row.predictions} predictions of one subject, "
            f"{row.superseded} superseded attempts and {row.labels} labels",
            details=SubjectForgotten(requested=deletion.requested, **row._mapping),
        ),
    )
    finished = update(t.deletions).where(d.id == deletion.id).values(finished=now, subject="")
    connection.execute(finished)
