"""Forgetting a subject: what the ledger keeps of one machine or person is deleted on request.

A request is a row. It is carried out a batch at a time by the sidecar that watches, for everything
up to the time of the request: predictions, superseded attempts, labels and the events of
contradictions between them. Records that still lie in a spool are dropped when they arrive. Once
every spool has been shipped past that time nothing more can come: then an event tells the counts,
and the subject itself is blanked out in the request too. Rows that somebody needs are no exception.
"""

import time
import uuid
from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, and_, delete, select, update

from watchkeeper.contracts.record import LabelRecord, Prediction
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.database import Ledger
from watchkeeper.ledger.events import Event, emit_in
from watchkeeper.ledger.once import CHUNK, in_one_transaction

SETTLE_SECONDS = 60.0  # a slow request may be recorded so long after its spool passed its time


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
        connection.execute(t.deletions.insert().values(**msgspec.structs.asdict(deletion)))
    return deletion


def deletions(ledger: Ledger, model: str) -> list[Deletion]:
    """Return the requests for a model, oldest first; finished ones have no subject any more."""
    d = t.deletions.c
    query = select(t.deletions).where(d.model == model).order_by(d.requested, d.id)
    with ledger.read() as connection:
        return [Deletion(**row._mapping) for row in connection.execute(query)]


def without_forgotten(
    connection: Connection,
    model: str,
    predictions: Sequence[Prediction],
    labels: Sequence[LabelRecord],
) -> tuple[Sequence[Prediction], Sequence[LabelRecord]]:
    """Leave out what somebody has asked to forget before it arrived."""
    d = t.deletions.c
    query = select(d.subject, d.requested).where(d.model == model, d.finished.is_(None))
    until: dict[str, float] = {}
    for row in connection.execute(query):
        until[row.subject] = max(row.requested, until.get(row.subject, row.requested))
    if not until:
        return predictions, labels
    dropped = {p.id for p in predictions if p.time <= until.get(p.subject, float("-inf"))}
    return (
        [p for p in predictions if p.id not in dropped],
        [label for label in labels if label.prediction not in dropped],
    )


def carry_out(ledger: Ledger, model: str, now: float, settle: float = SETTLE_SECONDS) -> bool:
    """Delete one batch of what is asked for; True when there may be more to delete at once."""
    d = t.deletions.c
    query = select(t.deletions).where(d.model == model, d.finished.is_(None))
    with ledger.read() as connection:
        waiting = [
            Deletion(**row._mapping) for row in connection.execute(query.order_by(d.requested))
        ]
        reach = _reach(connection, model)
    for deletion in waiting:
        if in_one_transaction(ledger, lambda c, asked=deletion: _delete_batch(c, asked)):  # type: ignore[misc]
            return True
        if min(reach, now) > deletion.requested + settle:
            in_one_transaction(ledger, lambda c, asked=deletion: _finish(c, asked, now))  # type: ignore[misc]
    return False


def _reach(connection: Connection, model: str) -> float:
    """Return the time up to which all open spools of a model have been shipped."""
    s = t.spools.c
    query = select(s.shipped_until).where(s.model == model, s.closed.is_(False))
    return min(connection.execute(query).scalars(), default=float("inf"))


def _delete_batch(connection: Connection, asked: Deletion) -> bool:
    found: dict[str, int] = {}
    ids: set[str] = set()
    for name, table in (("predictions", t.predictions), ("superseded", t.superseded)):
        c = table.c
        query = select(c.id).where(
            c.model == asked.model, c.subject == asked.subject, c.time <= asked.requested
        )
        some = set(connection.execute(query.limit(CHUNK)).scalars())
        gone = and_(c.id.in_(some), c.subject == asked.subject, c.time <= asked.requested)
        found[name] = connection.execute(delete(table).where(gone)).rowcount if some else 0
        ids |= some
    if not ids:
        return False
    found["labels"] = delete_labels(connection, ids)
    d = t.deletions.c
    counts = {name: d[name] + count for name, count in found.items()}
    connection.execute(update(t.deletions).where(d.id == asked.id).values(**counts))
    return True


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
