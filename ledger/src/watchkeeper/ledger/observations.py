"""Reading predictions and labels: windows for the watch, steps for a rollout, rows for training."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from sqlalchemy import ColumnElement, select

from watchkeeper.core.record import OK, Protocol
from watchkeeper.core.tasks.base import Labelled, Task
from watchkeeper.core.truths import Truth
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.database import Ledger
from watchkeeper.ledger.idempotent_writes import CHUNK, group_by

MEMORY_ROWS: Final = 4096  # rows of requests in memory at once, beside the rows of the result


class Observation(msgspec.Struct, frozen=True):
    """One stored prediction, see :class:`watchkeeper.core.record.Prediction`."""

    id: str
    version: int
    protocol: Protocol
    time: float
    latency: float
    status: str
    rows: int = 0
    inputs: dict[str, list[Any]] = {}
    outputs: dict[str, list[Any]] = {}
    error: str | None = None
    attempt: int = 1
    subject: str = ""
    client: str = ""
    synthetic: bool = False


class LabelledRow(msgspec.Struct, frozen=True):
    """One row of a prediction with its label; ``inputs`` and ``outputs`` hold one value a column.

    ``prediction`` is the id of the request, ``row`` counts from 0, ``time`` is when the request
    arrived, in seconds since 1970.
    """

    prediction: str
    row: int
    version: int
    time: float
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    label: float
    subject: str = ""
    client: str = ""


def observations(
    ledger: Ledger,
    model: str,
    version: int,
    *,
    since: float,
    until: float = float("inf"),
    limit: int | None = None,
    superseded: bool = False,
    synthetic: bool = False,
) -> list[Observation]:
    """Return the requests of a version with ``since <= time < until``, oldest first.

    Args:
        ledger: The ledger to read.
        model: The model.
        version: The version that the requests were sent to.
        since: The earliest time, in seconds since 1970.
        until: The time before which all requests lie.
        limit: Only so many requests, the newest.
        superseded: Also the attempts whose result the client did not see, without their rows.
            With them the result is what the version did, not only what clients saw.
        synthetic: Also synthetic requests. Only what does not learn from requests may read them.

    Raises:
        SQLAlchemyError: the ledger does not answer.
    """
    found: list[Observation] = []
    with ledger.read() as connection:
        for table in (t.predictions, t.superseded) if superseded else (t.predictions,):
            c = table.c
            columns = [c[name] for name in Observation.__struct_fields__ if name in c]
            query = select(*columns).where(c.model == model, c.version == version, c.time >= since)
            if until != float("inf"):
                query = query.where(c.time < until)
            if "synthetic" in c and not synthetic:
                query = query.where(c.synthetic.is_(False))
            query = query.order_by(c.time.desc(), c.id.desc()).limit(limit)
            found += [Observation(**row._mapping) for row in connection.execute(query)]
    found.sort(key=lambda o: (o.time, o.id, o.attempt))
    return found if limit is None else found[-limit:]


def request_sizes(
    ledger: Ledger,
    model: str,
    version: int,
    limit: int,
    *,
    after: float = float("-inf"),
    until: float = float("inf"),
    newest_first: bool = False,
    synthetic: bool = False,
) -> list[tuple[float, int]]:
    """Return (time, number of rows) of at most ``limit`` requests with ``after < time <= until``.

    Failed requests are included, synthetic ones only with ``synthetic``. The oldest come first, or
    the newest with ``newest_first``.
    """
    p = t.predictions.c
    query = select(p.time, p.rows).where(p.model == model, p.version == version)
    if after != float("-inf"):
        query = query.where(p.time > after)
    if until != float("inf"):
        query = query.where(p.time <= until)
    if not synthetic:
        query = query.where(p.synthetic.is_(False))
    order = (p.time.desc(), p.id.desc()) if newest_first else (p.time, p.id)
    with ledger.read() as connection:
        rows = connection.execute(query.order_by(*order).limit(limit)).all()
    return [(row.time, row.rows) for row in rows]


def time_of_row(
    ledger: Ledger,
    model: str,
    version: int,
    number: int,
    *,
    requests: int | None = None,
    after: float = float("-inf"),
    until: float = float("inf"),
    newest_first: bool = False,
    synthetic: bool = False,
) -> float | None:
    """Return the time of the request that contains row ``number``, counted from 1.

    A failed request counts as one row.

    Args:
        ledger: The ledger to read.
        model: The model.
        version: The version.
        number: The number of the row, among requests with ``after < time <= until``.
        requests: Only the first so many requests count.
        after: The time after which requests count, in seconds since 1970.
        until: The latest time of a request that counts.
        newest_first: Count from the newest row instead of the oldest.
        synthetic: Count synthetic requests, too.

    Returns:
        Seconds since 1970; None if there are fewer rows.
    """
    most = number if requests is None else requests
    for time, size in request_sizes(
        ledger,
        model,
        version,
        most,
        after=after,
        until=until,
        newest_first=newest_first,
        synthetic=synthetic,
    ):
        number -= max(size, 1)
        if number <= 0:
            return time
    return None


def labelled_rows(
    ledger: Ledger,
    model: str,
    *,
    since: float,
    until: float = float("inf"),
    version: int | None = None,
    limit: int | None = None,
    truth: Truth | None = None,
) -> list[LabelledRow]:
    """Return answered rows that have a label, oldest first.

    A row of a synthetic request has none, whatever an earlier release accepted.

    Args:
        ledger: The ledger to read.
        model: The model.
        since: The earliest time of a request, in seconds since 1970.
        until: The time before which all requests lie.
        version: Only rows of this version.
        limit: Only so many rows, the newest.
        truth: Only labels of this truth, once for each row. Labels that it cannot have, which an
            older server accepted, are left out. None returns each label of each row.

    Raises:
        SQLAlchemyError: the ledger does not answer.
    """
    p, label = t.predictions.c, t.labels.c
    query = (
        select(p.id, label.row, p.version, p.time, label.value, p.rows)
        .join_from(t.predictions, t.labels, p.id == label.prediction)
        .where(p.model == model, p.status == OK, p.time >= since, label.row < p.rows)
        .where(p.synthetic.is_(False))
        # A label with a name comes before one of the same row without a name.
        .order_by(p.time.desc(), p.id.desc(), label.row.desc(), label.name.desc())
    )
    if truth is not None:
        query = query.where(*of_truth(truth))
    if until != float("inf"):
        query = query.where(p.time < until)
    if version is not None:
        query = query.where(p.version == version)
    if limit is not None:
        query = query.limit(limit)
    found: list[LabelledRow] = []
    with ledger.read() as connection:
        selected = connection.execute(query).all()
        if truth is not None:
            selected = list({(row.id, row.row): row for row in reversed(selected)}.values())[::-1]
        labels = group_by(selected, lambda row: row.id)
        # A request is read once, even if many of its rows have labels.
        for ids in _parts({request: rows[0].rows for request, rows in labels.items()}):
            contents = select(p.id, p.inputs, p.outputs, p.subject, p.client).where(p.id.in_(ids))
            read = {row.id: row for row in connection.execute(contents)}
            found += [
                LabelledRow(
                    prediction=request,
                    row=labelled.row,
                    version=labelled.version,
                    time=labelled.time,
                    inputs=_cells(read[request].inputs, labelled.row),
                    outputs=_cells(read[request].outputs, labelled.row),
                    label=labelled.value,
                    subject=read[request].subject,
                    client=read[request].client,
                )
                for request in ids
                if request in read  # it may have been deleted in between
                for labelled in labels[request]
            ]
    return found[::-1]


def scored_labels(rows: Sequence[LabelledRow], task: Task) -> Labelled:
    """Return labels and scores of rows; a row that lacks a score is left out.

    Args:
        rows: Rows with labels of one truth.
        task: The task of the head that predicts it.
    """
    known = [
        (row.label, [row.outputs.get(name) for name in task.scores])
        for row in rows
        if all(row.outputs.get(name) is not None for name in task.scores)
    ]
    target = np.array([label for label, _ in known], dtype=np.float64)
    scores = np.array([values for _, values in known], dtype=np.float64)
    columns = scores.reshape(-1, len(task.scores)).T
    return Labelled(target, dict(zip(task.scores, columns, strict=True)))


def of_truth(truth: Truth) -> Iterator[ColumnElement[bool]]:
    """Return the conditions that a label is of a truth, and has a value that it can have."""
    label = t.labels.c
    yield label.name.in_(truth.stored_as)
    if truth.task.outcomes:
        yield label.value.in_(truth.task.outcomes)


def _parts(sizes: dict[str, int]) -> Iterator[list[str]]:
    """Split requests, given with their numbers of rows, into parts of a few thousand rows."""
    part: list[str] = []
    rows = 0
    for request, size in sizes.items():
        if part and (rows + size > MEMORY_ROWS or len(part) == CHUNK):
            yield part
            part, rows = [], 0
        part.append(request)
        rows += size
    if part:
        yield part


def _cells(columns: dict[str, list[Any]], row: int) -> dict[str, Any]:
    return {name: values[row] for name, values in columns.items()}
