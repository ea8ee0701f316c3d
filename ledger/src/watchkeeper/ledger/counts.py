"""Counting requests, labels and drift reports of a model."""

import msgspec
from sqlalchemy import case, func, select

from watchkeeper.core.labels import LABELS, POSITIVE
from watchkeeper.core.record import OK, Protocol
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.database import Ledger


class StoredRequests(msgspec.Struct, frozen=True):
    """Request ids: answered requests by protocol, and refused requests."""

    answered: dict[Protocol, set[str]]
    refused: set[str]


def stored_requests(
    ledger: Ledger, model: str, *, since: float = float("-inf"), until: float = float("inf")
) -> StoredRequests:
    """Return the ids of all requests with ``since <= time <= until``, in seconds since 1970.

    Without bounds it reads all requests of a model: for tests and trials.
    """
    p = t.predictions.c
    query = select(p.id, p.protocol, p.status).where(p.model == model)
    if since != float("-inf"):
        query = query.where(p.time >= since)
    if until != float("inf"):
        query = query.where(p.time <= until)
    answered: dict[Protocol, set[str]] = {"http": set(), "grpc": set()}
    refused: set[str] = set()
    with ledger.read() as connection:
        for row in connection.execute(query):
            (answered[row.protocol] if row.status == OK else refused).add(row.id)
    return StoredRequests(answered, refused)


def count_answered(ledger: Ledger, model: str) -> int:
    """Count the answered requests of a model."""
    p = t.predictions.c
    query = select(func.count()).where(p.model == model, p.status == OK)
    with ledger.read() as connection:
        return int(connection.execute(query).scalar_one())


def count_requests(
    ledger: Ledger, model: str, *, since: float, until: float
) -> dict[tuple[Protocol, int], int]:
    """Count requests with ``since <= time < until`` by protocol and version."""
    p = t.predictions.c
    query = (
        select(p.protocol, p.version, func.count())
        .where(p.model == model, p.time >= since, p.time < until)
        .group_by(p.protocol, p.version)
    )
    with ledger.read() as connection:
        return {
            (protocol, version): int(number)
            for protocol, version, number in connection.execute(query)
        }


def count_labelled_rows(ledger: Ledger, model: str, *, since: float) -> tuple[int, int]:
    """Count the labelled rows of answered requests since a time, and the positive ones among them.

    Labels of synthetic requests, and labels other than 0 and 1, which an older server accepted, do
    not count.

    Returns:
        The number of labelled rows, and the number of those with label 1.
    """
    p, label = t.predictions.c, t.labels.c
    query = (
        select(func.count(), func.count(case((label.value == POSITIVE, 1))))
        .select_from(t.predictions.join(t.labels, p.id == label.prediction))
        .where(
            p.model == model,
            p.status == OK,
            p.time >= since,
            label.row < p.rows,
            label.value.in_(LABELS),
            p.synthetic.is_(False),
        )
    )
    with ledger.read() as connection:
        rows, positives = connection.execute(query).one()
    return int(rows), int(positives)


def count_labels(ledger: Ledger, model: str) -> int:
    """Count the labels of a model, also those whose prediction is not stored. A label is 0 or 1."""
    label = t.labels.c
    query = select(func.count()).where(label.model == model, label.value.in_(LABELS))
    with ledger.read() as connection:
        return int(connection.execute(query).scalar_one())


def count_reports(ledger: Ledger, model: str, version: int, *, drifted: bool | None = None) -> int:
    """Count the drift reports of a version; with ``drifted`` those with this result."""
    r = t.drift_reports.c
    query = select(func.count()).where(r.model == model, r.version == version)
    if drifted is not None:
        query = query.where(r.drifted.is_(drifted))
    with ledger.read() as connection:
        return int(connection.execute(query).scalar_one())
