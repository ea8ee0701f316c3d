"""Counting requests, labels and drift reports of a model."""

import msgspec
from sqlalchemy import func, null, select

from watchkeeper.core.record import OK, Protocol
from watchkeeper.core.truths import Truth
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.database import Ledger
from watchkeeper.ledger.observations import of_truth


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


def count_labelled_rows(
    ledger: Ledger,
    model: str,
    *,
    since: float,
    until: float = float("inf"),
    version: int | None = None,
    truth: Truth | None = None,
) -> tuple[int, dict[float, int]]:
    """Count the labelled rows of answered requests since a time.

    Labels of synthetic requests do not count.

    Args:
        ledger: The ledger to read.
        model: The model.
        since: The earliest time of a request, in seconds since 1970.
        until: The time before which all requests lie.
        version: Only rows of this version.
        truth: Only labels of this truth. Labels that it cannot have, which an older server
            accepted, do not count. None counts each label of each row.

    Returns:
        The number of labelled rows, and how many of them have each outcome.
    """
    p, label = t.predictions.c, t.labels.c
    by_value = truth is not None and bool(truth.task.outcomes)
    query = (
        select(label.value if by_value else null(), func.count())
        .select_from(t.predictions.join(t.labels, p.id == label.prediction))
        .where(
            p.model == model,
            p.status == OK,
            p.time >= since,
            label.row < p.rows,
            p.synthetic.is_(False),
        )
    )
    if truth is not None:
        query = query.where(*of_truth(truth))
    if until != float("inf"):
        query = query.where(p.time < until)
    if version is not None:
        query = query.where(p.version == version)
    if by_value:
        query = query.group_by(label.value)
    with ledger.read() as connection:
        found = [(value, int(count)) for value, count in connection.execute(query)]
    rows = sum(count for _, count in found)
    return rows, {float(value): count for value, count in found if value is not None}


def count_labels(ledger: Ledger, model: str) -> int:
    """Count the labels of a model, also those whose prediction is not stored."""
    query = select(func.count()).where(t.labels.c.model == model)
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
