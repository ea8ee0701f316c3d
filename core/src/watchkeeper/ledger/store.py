"""Shipping: put records into the ledger, at least once from the spool, exactly once by id.

The rule for labels: the first label of a row stands; the same value again is nothing new; another
value with a later time replaces it, and every contradiction becomes an event.
"""

from collections.abc import Iterable, Sequence

import msgspec
from sqlalchemy import Connection, and_, or_, select, update

from watchkeeper.contracts.record import LabelRecord, Prediction
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.arrivals import store_predictions
from watchkeeper.ledger.database import Ledger
from watchkeeper.ledger.deletions import without_forgotten
from watchkeeper.ledger.events import Event, emit_in
from watchkeeper.ledger.gaps import StoredGap, store_gaps
from watchkeeper.ledger.once import clean, in_one_transaction, store_latest, store_new


class SpoolState(msgspec.Struct, frozen=True):
    """How far a spool has been shipped, see ``tables.spools``.

    ``seen`` is when its sidecar wrote this, by its own clock: whoever sees it change knows that
    the sidecar lives.
    """

    id: str
    model: str
    version: int
    shipped_until: float
    lost: int = 0
    closed: bool = False
    seen: float = 0.0


def ship(
    ledger: Ledger,
    predictions: Sequence[Prediction],
    labels: Sequence[LabelRecord],
    spool: SpoolState,
    gaps: Sequence[StoredGap] = (),
) -> None:
    """Store a batch and the spool's progress in one transaction; safe to repeat.

    What somebody asked to forget is not stored any more, see ``deletions``.
    """

    def store(connection: Connection) -> None:
        kept, kept_labels = without_forgotten(connection, spool.model, predictions, labels)
        store_predictions(connection, kept)
        _store_labels(connection, kept_labels)
        store_gaps(connection, gaps)
        store_latest(connection, t.spools, msgspec.structs.asdict(spool))

    in_one_transaction(ledger, store)


def _store_labels(connection: Connection, batch: Sequence[LabelRecord]) -> None:
    for new in batch:
        key = and_(t.labels.c.prediction == new.prediction, t.labels.c.row == new.row)
        values = {**msgspec.structs.asdict(new), "client": clean(new.client, 255)}
        if store_new(connection, t.labels, values):
            continue
        known = connection.execute(select(t.labels).where(key)).one()
        if known.value != new.value:
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
