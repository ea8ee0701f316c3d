"""Shipping: put records into the ledger, at least once from the spool, exactly once by id.

The rule for labels: the first label of a row stands; the same value again is nothing new; another
value with a later time replaces it, and every contradiction becomes an event.
"""

from collections.abc import Iterable, Sequence

import msgspec
from sqlalchemy import Connection, insert, or_, select, update

from watchkeeper.contracts.record import LabelRecord, Prediction
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.arrivals import store_predictions
from watchkeeper.ledger.database import Ledger
from watchkeeper.ledger.deletions import without_forgotten
from watchkeeper.ledger.events import Event, emit_in
from watchkeeper.ledger.gaps import StoredGap, store_gaps
from watchkeeper.ledger.once import chunks, clean, in_one_transaction, store_latest

Key = tuple[str, int]  # a label's prediction and row


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
    stand = _known_labels(connection, sorted({new.prediction for new in batch}))
    stored = set(stand)
    changed: set[Key] = set()
    contradictions: list[Event] = []
    for new in batch:
        key = (new.prediction, new.row)
        known = stand.get(key)
        if known is None:
            stand[key] = msgspec.structs.replace(new, client=clean(new.client, 255))
            changed.add(key)
        elif known.value != new.value:
            if new.time > known.time:
                stand[key] = msgspec.structs.replace(known, value=new.value, time=new.time)
                changed.add(key)
            contradictions.append(_contradiction(new, known.value, known.time))
    # In one order everywhere: two sidecars with labels for the same rows must not deadlock.
    fresh = [msgspec.structs.asdict(stand[key]) for key in sorted(changed - stored)]
    if fresh:
        connection.execute(insert(t.labels), fresh)
    for key in sorted(changed & stored):
        label = t.labels.c
        mine = update(t.labels).where(label.prediction == key[0], label.row == key[1])
        connection.execute(mine.values(value=stand[key].value, time=stand[key].time))
    for event in contradictions:
        emit_in(connection, event)


def _known_labels(connection: Connection, ids: list[str]) -> dict[Key, LabelRecord]:
    found: dict[Key, LabelRecord] = {}
    for some in chunks(ids):
        query = select(t.labels).where(t.labels.c.prediction.in_(some))
        for row in connection.execute(query):
            found[row.prediction, row.row] = LabelRecord(**row._mapping)
    return found


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
