"""Storing predictions: one row for a request, and the other attempts beside it.

A gateway may send a request several times, to different versions. The client sees one answer, so
one attempt becomes the prediction: the last one that was answered, or the last one if all failed.
The others are stored in ``superseded``. They still count against the version that failed: a retry
that succeeds elsewhere must not hide the failures of a canary.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from watchkeeper.core.record import OK, Prediction
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.idempotent_writes import TEXT_LENGTH, chunks, fit_text, group_by

Attempt = tuple[int, int]  # the gateway's count of attempts, and the version


def store_predictions(connection: Connection, batch: Sequence[Prediction]) -> None:
    """Store attempts. Their order does not matter, and storing one twice changes nothing."""
    groups = group_by(batch, lambda p: p.id)
    # Sorted: two sidecars that store the same requests in another order would deadlock.
    requests = {request: {_attempt(p): p for p in groups[request]} for request in sorted(groups)}
    stored_requests = _stored(connection, list(requests))
    new: list[dict[str, Any]] = []
    superseded: list[dict[str, Any]] = []
    for request, attempts in requests.items():
        best = max(attempts.values(), key=_rank)
        final = _attempt(best)
        stored = stored_requests.get(request)
        if stored is None:
            new.append(_row(best))
        elif _rank(best) > _rank(stored):
            superseded.append(_stored_attempt(connection, request))
            values = update(t.predictions).where(t.predictions.c.id == request)
            connection.execute(values.values(**_row(best)))
        else:
            final = _attempt(stored)
        superseded += [_superseded(_row(p)) for key, p in attempts.items() if key != final]
    if new:
        connection.execute(insert(t.predictions), new)
    if superseded:
        _store_superseded(connection, superseded)


def _stored(connection: Connection, ids: list[str]) -> dict[str, Row[Any]]:
    p = t.predictions.c
    # Locked until the end of the transaction: no other sidecar may change a row before our update.
    query = select(p.id, p.attempt, p.version, p.status).order_by(p.id).with_for_update()
    found: dict[str, Row[Any]] = {}
    for chunk in chunks(ids):
        found |= {row.id: row for row in connection.execute(query.where(p.id.in_(chunk)))}
    return found


def _stored_attempt(connection: Connection, request: str) -> dict[str, Any]:
    query = select(t.predictions).where(t.predictions.c.id == request)
    return _superseded(dict(connection.execute(query).one()._mapping))


def _store_superseded(connection: Connection, rows: list[dict[str, Any]]) -> None:
    s = t.superseded.c
    stored = {
        (row.id, row.attempt, row.version)
        for chunk in chunks(sorted({row["id"] for row in rows}))
        for row in connection.execute(select(s.id, s.attempt, s.version).where(s.id.in_(chunk)))
    }
    by_key = {(r["id"], r["attempt"], r["version"]): r for r in rows}
    if missing := [row for key, row in by_key.items() if key not in stored]:
        connection.execute(insert(t.superseded), missing)


def _attempt(one: Prediction | Row[Any]) -> Attempt:
    return one.attempt, one.version


def _rank(one: Prediction | Row[Any]) -> tuple[bool, int, int]:
    return one.status == OK, one.attempt, one.version


def _row(prediction: Prediction) -> dict[str, Any]:
    error = prediction.error
    return {
        **msgspec.structs.asdict(prediction),
        "client": fit_text(prediction.client, 255),
        "subject": fit_text(prediction.subject, 255),
        "error": None if error is None else fit_text(error, TEXT_LENGTH),
    }


def _superseded(row: dict[str, Any]) -> dict[str, Any]:
    return {column.name: row[column.name] for column in t.superseded.columns}
