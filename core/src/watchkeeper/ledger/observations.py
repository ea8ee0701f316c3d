"""Reading predictions and labels back: windows for the watch, steps for the analysis,
rows for training."""

from collections.abc import Iterator
from typing import Any

import msgspec
from sqlalchemy import Select, and_, func, select

from watchkeeper.contracts.record import OK
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.database import Ledger
from watchkeeper.ledger.once import CHUNK, keyed

READ_ROWS = 4096  # of requests in memory at once beside what is asked for


class Observation(msgspec.Struct, frozen=True):
    """One stored prediction, see ``contracts.record.Prediction``."""

    id: str
    version: int
    protocol: str
    time: float
    latency: float
    status: str
    rows: int = 0
    inputs: dict[str, list[Any]] = {}
    outputs: dict[str, list[Any]] = {}
    error: str | None = None
    attempt: int = 1


class LabelledRow(msgspec.Struct, frozen=True):
    """One row of a prediction together with what turned out to be true."""

    prediction: str
    row: int
    version: int
    time: float
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    label: float


def observations(
    ledger: Ledger,
    model: str,
    version: int,
    *,
    since: float,
    until: float = float("inf"),
    newest: int | None = None,
    superseded: bool = False,
) -> list[Observation]:
    """Return what a version was asked with ``since <= time < until``, oldest first.

    ``newest`` keeps only so many of the latest. With ``superseded`` also the attempts that a
    retry has hidden, without their rows: what the version did, not only what the client saw.
    """
    found: list[Observation] = []
    with ledger.read() as connection:
        for table in (t.predictions, t.superseded) if superseded else (t.predictions,):
            c = table.c
            told = [c[name] for name in Observation.__struct_fields__ if name in c]
            query = select(*told).where(c.model == model, c.version == version, c.time >= since)
            if until != float("inf"):
                query = query.where(c.time < until)
            query = query.order_by(c.time.desc(), c.id.desc()).limit(newest)
            found += [Observation(**row._mapping) for row in connection.execute(query)]
    found.sort(key=lambda o: (o.time, o.id, o.attempt))
    return found if newest is None else found[-newest:]


def request_sizes(
    ledger: Ledger,
    model: str,
    version: int,
    limit: int,
    *,
    after: float = float("-inf"),
    until: float = float("inf"),
    newest: bool = False,
) -> list[tuple[float, int]]:
    """Return (time, rows) of at most ``limit`` requests with ``after < time <= until``.

    Answered or refused, the oldest first; with ``newest`` the newest first.
    """
    p = t.predictions.c
    query = select(p.time, p.rows).where(p.model == model, p.version == version)
    if after != float("-inf"):
        query = query.where(p.time > after)
    if until != float("inf"):
        query = query.where(p.time <= until)
    order = (p.time.desc(), p.id.desc()) if newest else (p.time, p.id)
    with ledger.read() as connection:
        rows = connection.execute(query.order_by(*order).limit(limit)).all()
    return [(row.time, row.rows) for row in rows]


def reach(
    ledger: Ledger,
    model: str,
    version: int,
    rows: int,
    *,
    requests: int | None = None,
    after: float = float("-inf"),
    until: float = float("inf"),
    newest: bool = False,
) -> float | None:
    """Return the time of the request with ``after < time <= until`` that makes ``rows`` rows full.

    Counted from the oldest, with ``newest`` from the newest; a refused request counts as a row.
    None where there are fewer rows, or fewer in the first ``requests`` of them.
    """
    most = rows if requests is None else requests
    for time, size in request_sizes(
        ledger, model, version, most, after=after, until=until, newest=newest
    ):
        rows -= max(size, 1)
        if rows <= 0:
            return time
    return None


def labelled_rows(
    ledger: Ledger,
    model: str,
    *,
    since: float,
    until: float = float("inf"),
    version: int | None = None,
    newest: int | None = None,
) -> list[LabelledRow]:
    """Return answered rows with ``since <= time < until`` that have a label, oldest first.

    ``newest`` keeps only so many of the latest. Requests are read once each however many of their
    rows are labelled, and a few at a time.
    """
    p, label = t.predictions.c, t.labels.c
    query = (
        select(p.id, label.row, p.version, p.time, label.value, p.rows)
        .join_from(t.predictions, t.labels, p.id == label.prediction)
        .where(p.model == model, p.status == OK, p.time >= since, label.row < p.rows)
        .order_by(p.time.desc(), p.id.desc(), label.row.desc())
    )
    if until != float("inf"):
        query = query.where(p.time < until)
    if version is not None:
        query = query.where(p.version == version)
    if newest is not None:
        query = query.limit(newest)
    found: list[LabelledRow] = []
    with ledger.read() as connection:
        labels = keyed(connection.execute(query), lambda one: one.id)
        for ids in _few({request: rows[0].rows for request, rows in labels.items()}):
            contents = select(p.id, p.inputs, p.outputs).where(p.id.in_(ids))
            read = {row.id: row for row in connection.execute(contents)}
            found += [
                LabelledRow(
                    prediction=request,
                    row=one.row,
                    version=one.version,
                    time=one.time,
                    inputs=_cell(read[request].inputs, one.row),
                    outputs=_cell(read[request].outputs, one.row),
                    label=one.value,
                )
                for request in ids
                if request in read  # and was not forgotten in between
                for one in labels[request]
            ]
    return found[::-1]


def _few(sizes: dict[str, int]) -> Iterator[list[str]]:
    """Cut requests, given with their numbers of rows, into parts of a few thousand rows."""
    part: list[str] = []
    rows = 0
    for request, size in sizes.items():
        if part and (rows + size > READ_ROWS or len(part) == CHUNK):
            yield part
            part, rows = [], 0
        part.append(request)
        rows += size
    if part:
        yield part


def count_labels(ledger: Ledger, model: str, *, since: float) -> tuple[int, int]:
    """Count labelled rows, and positive ones among them, of requests since ``since``."""
    p, label = t.predictions.c, t.labels.c
    query: Select[Any] = (
        select(func.count(), func.coalesce(func.sum(label.value), 0.0))
        .select_from(t.predictions.join(t.labels, p.id == label.prediction))
        .where(and_(p.model == model, p.status == OK, p.time >= since))
    )
    with ledger.read() as connection:
        rows, positives = connection.execute(query).one()
    return int(rows), int(positives)


def _cell(columns: dict[str, list[Any]], row: int) -> dict[str, Any]:
    return {name: values[row] for name, values in columns.items()}
