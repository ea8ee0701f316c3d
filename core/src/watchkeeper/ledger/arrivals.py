"""Storing predictions: one row a request, and every other attempt at it beside that.

Of several attempts at a request the last one that answered stands, because that is what the client
saw; an error never hides an answer. All the others are kept in ``superseded``: a gateway that
repeats what one version failed elsewhere must not make that version look better than it is.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from watchkeeper.contracts.record import OK, Prediction
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.once import TEXT, chunks, clean, keyed

Attempt = tuple[int, int]  # the gateway's count of it, and the version that was asked


def store_predictions(connection: Connection, batch: Sequence[Prediction]) -> None:
    """Store attempts in whatever order and however often they come."""
    groups = keyed(batch, lambda p: p.id)
    # In one order everywhere: two sidecars that store the same requests must not deadlock.
    requests = {request: {_attempt(p): p for p in groups[request]} for request in sorted(groups)}
    known = _stored(connection, list(requests))
    fresh: list[dict[str, Any]] = []
    behind: list[dict[str, Any]] = []
    for request, tries in requests.items():
        best = max(tries.values(), key=_rank)
        stands = _attempt(best)
        stored = known.get(request)
        if stored is None:
            fresh.append(_row(best))
        elif _rank(best) > _rank(stored):
            behind.append(_displaced(connection, request))
            values = update(t.predictions).where(t.predictions.c.id == request)
            connection.execute(values.values(**_row(best)))
        else:
            stands = _attempt(stored)
        behind += [_superseded(_row(p)) for key, p in tries.items() if key != stands]
    if fresh:
        connection.execute(insert(t.predictions), fresh)
    if behind:
        _store_superseded(connection, behind)


def _stored(connection: Connection, ids: list[str]) -> dict[str, Row[Any]]:
    p = t.predictions.c
    # Held to the end: another sidecar's attempt must not come between this and the update.
    query = select(p.id, p.attempt, p.version, p.status).order_by(p.id).with_for_update()
    found: dict[str, Row[Any]] = {}
    for some in chunks(ids):
        found |= {row.id: row for row in connection.execute(query.where(p.id.in_(some)))}
    return found


def _displaced(connection: Connection, request: str) -> dict[str, Any]:
    query = select(t.predictions).where(t.predictions.c.id == request)
    return _superseded(dict(connection.execute(query).one()._mapping))


def _store_superseded(connection: Connection, rows: list[dict[str, Any]]) -> None:
    s = t.superseded.c
    there = {
        (row.id, row.attempt, row.version)
        for some in chunks(sorted({row["id"] for row in rows}))
        for row in connection.execute(select(s.id, s.attempt, s.version).where(s.id.in_(some)))
    }
    new = {(r["id"], r["attempt"], r["version"]): r for r in rows}
    if missing := [row for key, row in new.items() if key not in there]:
        connection.execute(insert(t.superseded), missing)


def _attempt(one: Prediction | Row[Any]) -> Attempt:
    return one.attempt, one.version


def _rank(one: Prediction | Row[Any]) -> tuple[bool, int, int]:
    return one.status == OK, one.attempt, one.version


def _row(prediction: Prediction) -> dict[str, Any]:
    return {
        **msgspec.structs.asdict(prediction),
        "client": clean(prediction.client, 255),
        "subject": clean(prediction.subject, 255),
        "error": None if prediction.error is None else clean(prediction.error, TEXT),
    }


def _superseded(row: dict[str, Any]) -> dict[str, Any]:
    return {column.name: row[column.name] for column in t.superseded.columns}
