"""Shipping: put records into the ledger, at least once from the spool, exactly once by id.

The rule for labels: the first label of a row stands; the same value again is nothing new; another
value with a later time replaces it, and every contradiction becomes an event.
"""

from collections.abc import Iterable, Sequence

import msgspec
from sqlalchemy import Connection, and_, insert, or_, select, update

from watchkeeper.contracts.record import OK, LabelRecord, Prediction
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.database import Ledger
from watchkeeper.ledger.events import Event, emit_in

CHUNK = 200  # ids in one IN (...): below every database's limit


class SpoolState(msgspec.Struct, frozen=True):
    """How far a spool has been shipped, see ``tables.spools``."""

    id: str
    model: str
    version: int
    shipped_until: float
    lost: int = 0
    closed: bool = False


def ship(
    ledger: Ledger,
    predictions: Sequence[Prediction],
    labels: Sequence[LabelRecord],
    spool: SpoolState,
) -> None:
    """Store a batch and the spool's progress in one transaction; safe to repeat."""
    with ledger.begin() as connection:
        _store_predictions(connection, predictions)
        _store_labels(connection, labels)
        _store_spool(connection, spool)


def _store_predictions(connection: Connection, batch: Sequence[Prediction]) -> None:
    newest: dict[str, Prediction] = {}
    for prediction in batch:
        known = newest.get(prediction.id)
        if known is None or _stands_before(prediction, known.attempt, known.status):
            newest[prediction.id] = prediction
    stored = {
        row.id: row
        for ids in _chunks(list(newest))
        for row in connection.execute(
            select(t.predictions.c.id, t.predictions.c.attempt, t.predictions.c.status).where(
                t.predictions.c.id.in_(ids)
            )
        )
    }
    fresh = [p for p in newest.values() if p.id not in stored]
    if fresh:
        connection.execute(insert(t.predictions), [_row(p) for p in fresh])
    for p in newest.values():
        if p.id in stored and _stands_before(p, stored[p.id].attempt, stored[p.id].status):
            connection.execute(
                update(t.predictions).where(t.predictions.c.id == p.id).values(**_row(p))
            )


def _stands_before(new: Prediction, attempt: int, status: str) -> bool:
    """The last attempt that answered is what the client saw; an error never hides an answer."""
    return (new.status == OK, new.attempt) > (status == OK, attempt)


def _store_labels(connection: Connection, batch: Sequence[LabelRecord]) -> None:
    for new in batch:
        key = and_(t.labels.c.prediction == new.prediction, t.labels.c.row == new.row)
        known = connection.execute(select(t.labels).where(key)).first()
        if known is None:
            connection.execute(insert(t.labels).values(**msgspec.structs.asdict(new)))
        elif known.value != new.value:
            if new.time > known.time:
                connection.execute(
                    update(t.labels).where(key).values(value=new.value, time=new.time)
                )
            emit_in(connection, _contradiction(new, known.value, known.time))


def _contradiction(new: LabelRecord, known: float, known_time: float) -> Event:
    # The pair makes the id, not the order of arrival: a batch that is shipped again finds its
    # last label standing, and must not report the first one as a contradiction of that.
    late = new.time > known_time
    before, after = (known, new.value) if late else (new.value, known)
    time = max(new.time, known_time)
    return Event(
        id=f"{new.prediction}/{new.row}/contradicted/{time:.3f}/{before:g}",
        model=new.model,
        version=new.version,
        kind="label-contradicted",
        time=time,
        reason=f"row {new.row} was labelled {before:g}, then {after:g}; the later stands",
        details={"prediction": new.prediction, "row": new.row, "client": new.client},
    )


def _store_spool(connection: Connection, spool: SpoolState) -> None:
    values = msgspec.structs.asdict(spool)
    if connection.execute(select(t.spools.c.id).where(t.spools.c.id == spool.id)).first():
        connection.execute(update(t.spools).where(t.spools.c.id == spool.id).values(**values))
    else:
        connection.execute(insert(t.spools).values(**values))


def shipped_until(ledger: Ledger, model: str, versions: Iterable[int]) -> float | None:
    """Return the time up to which every open spool of ``versions`` is in the ledger.

    None when one of the versions has no spool yet: then nothing can be said about it.
    """
    wanted = set(versions)
    with ledger.read() as connection:
        rows = connection.execute(
            select(t.spools.c.version, t.spools.c.shipped_until, t.spools.c.closed).where(
                t.spools.c.model == model, or_(*(t.spools.c.version == v for v in wanted))
            )
        ).all()
    if {row.version for row in rows} != wanted:
        return None
    return min((row.shipped_until for row in rows if not row.closed), default=float("inf"))


def _row(prediction: Prediction) -> dict[str, object]:
    return {**msgspec.structs.asdict(prediction), "client": prediction.client[:255]}


def _chunks(ids: list[str]) -> Iterable[list[str]]:
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
