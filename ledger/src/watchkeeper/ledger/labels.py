"""Storing labels: one label for each truth of each row of a prediction.

Of several labels of a truth, the one with the latest time counts. Of several with the same time,
the one with the largest value counts. So the result does not depend on the order in which labels
arrive, or on how often. A label with another value than the stored one writes an event.
"""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, insert, select, update

from watchkeeper.core.events import Event, LabelContradicted
from watchkeeper.core.record import LabelRecord
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.events import emit_in
from watchkeeper.ledger.idempotent_writes import chunks, fit_text

Key = tuple[str, int, str]  # a label's prediction, row and name


def store_labels(connection: Connection, batch: Sequence[LabelRecord]) -> None:
    """Store labels. Their order does not matter, and storing one twice changes nothing."""
    current = _stored(connection, sorted({label.prediction for label in batch}))
    stored = set(current)
    changed: set[Key] = set()
    contradictions: list[Event] = []
    for received in batch:
        label = msgspec.structs.replace(received, client=fit_text(received.client, 255))
        key = (label.prediction, label.row, label.name)
        known = current.get(key)
        if known is None or _rank(label) > _rank(known):
            current[key] = label
            changed.add(key)
        if known is not None and known.value != label.value:
            contradictions.append(_contradiction(*sorted((known, label), key=_rank)))
    # Sorted: two sidecars that store labels of the same rows in another order would deadlock.
    new = [msgspec.structs.asdict(current[key]) for key in sorted(changed - stored)]
    if new:
        connection.execute(insert(t.labels), new)
    for key in sorted(changed & stored):
        column = t.labels.c
        row = update(t.labels).where(
            column.prediction == key[0], column.row == key[1], column.name == key[2]
        )
        connection.execute(row.values(**msgspec.structs.asdict(current[key])))
    for event in contradictions:
        emit_in(connection, event)


def _rank(label: LabelRecord) -> tuple[float, float, str]:
    return label.time, label.value, label.client


def _stored(connection: Connection, ids: list[str]) -> dict[Key, LabelRecord]:
    label = t.labels.c
    # Locked until the end of the transaction: no other sidecar may change a row before our update.
    query = select(t.labels).order_by(label.prediction, label.row, label.name).with_for_update()
    found: dict[Key, LabelRecord] = {}
    for chunk in chunks(ids):
        for row in connection.execute(query.where(label.prediction.in_(chunk))):
            found[row.prediction, row.row, row.name] = LabelRecord(**row._mapping)
    return found


def _contradiction(before: LabelRecord, after: LabelRecord) -> Event:
    # The id contains the value that does not count. A batch that is shipped again finds its last
    # label stored, and so computes the same id.
    return Event(
        id=f"{before.prediction}/{before.row}{before.name and f'/{before.name}'}/contradicted/"
        f"{before.value!r}",
        model=after.model,
        version=after.version,
        time=after.time,
        reason=f"row {after.row} has the labels {before.value:g} and {after.value:g}"
        f"{after.name and f' of {after.name!r}'}; the later one counts",
        details=LabelContradicted(
            prediction=after.prediction, row=after.row, client=after.client, name=after.name
        ),
    )
