"""Shipping: put records into the ledger, at least once from the spool, exactly once by id.

The rule for labels: of all labels of a row the one with the latest time stands, of several with the
same time the one with the largest value, in whatever order and however often they come. A value
that is contradicted becomes an event, once for each row.
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
        store_labels(connection, kept_labels)
        store_gaps(connection, gaps)
        store_latest(connection, t.spools, msgspec.structs.asdict(spool))

    in_one_transaction(ledger, store)


def store_labels(connection: Connection, batch: Sequence[LabelRecord]) -> None:
    """Store labels in whatever order and however often they come."""
    stand = _known_labels(connection, sorted({new.prediction for new in batch}))
    stored = set(stand)
    changed: set[Key] = set()
    contradictions: list[Event] = []
    for sent in batch:
        new = msgspec.structs.replace(sent, client=clean(sent.client, 255))
        key = (new.prediction, new.row)
        known = stand.get(key)
        if known is None or _rank(new) > _rank(known):
            stand[key] = new
            changed.add(key)
        if known is not None and known.value != new.value:
            contradictions.append(_contradiction(*sorted((known, new), key=_rank)))
    # In one order everywhere: two sidecars with labels for the same rows must not deadlock.
    fresh = [msgspec.structs.asdict(stand[key]) for key in sorted(changed - stored)]
    if fresh:
        connection.execute(insert(t.labels), fresh)
    for key in sorted(changed & stored):
        label = t.labels.c
        mine = update(t.labels).where(label.prediction == key[0], label.row == key[1])
        connection.execute(mine.values(**msgspec.structs.asdict(stand[key])))
    for event in contradictions:
        emit_in(connection, event)


def _rank(label: LabelRecord) -> tuple[float, float, str]:
    return label.time, label.value, label.client


def _known_labels(connection: Connection, ids: list[str]) -> dict[Key, LabelRecord]:
    label = t.labels.c
    # Held to the end: another sidecar's label must not come between this and the update.
    query = select(t.labels).order_by(label.prediction, label.row).with_for_update()
    found: dict[Key, LabelRecord] = {}
    for some in chunks(ids):
        for row in connection.execute(query.where(label.prediction.in_(some))):
            found[row.prediction, row.row] = LabelRecord(**row._mapping)
    return found


def _contradiction(before: LabelRecord, after: LabelRecord) -> Event:
    # The value that does not stand makes the id: a batch that is shipped again, and then finds its
    # last label standing, tells nothing new.
    return Event(
        id=f"{before.prediction}/{before.row}/contradicted/{before.value!r}",
        model=after.model,
        version=after.version,
        kind="label-contradicted",
        time=after.time,
        reason=f"row {after.row} was labelled {before.value:g}, then {after.value:g}; "
        "the later stands",
        details={"prediction": after.prediction, "row": after.row, "client": after.client},
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
