"""The history: the rows that one query on the operational database returns."""

import logging
import sys
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import text

from watchkeeper.training import CannotTrainError
from watchkeeper.training.database import transaction
from watchkeeper.training.declaration import Model
from watchkeeper.training.rows import Rows
from watchkeeper.training.usable import Table, usable

log = logging.getLogger(__name__)

_INT64 = np.iinfo(np.int64)
PART_ROWS: Final = 20_000


def read_history(url: str, model: Model) -> Rows:
    """Read all rows of the model's source with a truth, oldest first; all rows if it has none.

    Raises:
        CannotTrainError: the database or table does not exist, or is empty; a column is missing
            or holds values that it must not; or all rows have the same outcome.
        SourceUnavailableError: the database does not answer.
    """
    frame, where = _query(url, model), f"history of {model.name}"
    _check_columns(frame, model, where)
    labels = [truth.name for truth in model.truths]
    frame.index = pd.Index(_ids(frame, model.source.id, where))
    known = (frame[labels].notna() & (frame[labels] != "")).to_numpy()
    count = len(frame)
    labelled = known.any(axis=1) if labels else np.ones(count, dtype=bool)
    if labels:
        log.info("%s: %d of %d rows have a label", where, labelled.sum(), count)
    for name, present in zip(labels, known.any(axis=0), strict=True):
        if not present:
            raise CannotTrainError(
                f"{where}: {name!r} is empty in all {count} rows; a training run needs rows "
                "whose truth is known"
            )
    # Copies of a large table only where they are needed, and never two at a time.
    if not labelled.all():
        frame = frame[labelled]
    if not frame.index.is_monotonic_increasing:
        frame = frame.sort_index()
    rows = usable(frame, model, where, required=True)
    for truth in model.truths:
        target = rows.about(truth.name).target
        if len(outcomes := np.unique(target)) < 2:
            value = f"is {truth.task.name(outcomes[0])}" if len(outcomes) else "is empty"
            raise CannotTrainError(
                f"{where}: {truth.name!r} {value} in all {len(target) or len(rows)} rows that can "
                "be used; a training run needs rows with different truths"
            )
    return rows


def _check_columns(frame: pd.DataFrame, model: Model, where: str) -> None:
    """Check that all columns that the model names are there, and that each row has an id."""
    names = list(frame.columns)
    group = [model.split.group] if model.split.group else []
    for name in (model.source.id, *model.names, *(truth.name for truth in model.truths), *group):
        if names.count(name) != 1:
            found = "twice" if name in names else f"not; it returns {', '.join(map(str, names))}"
            raise CannotTrainError(
                f"{where}: the source's query must return column {name!r} once, and returns it "
                f"{found}"
            )
    if frame.empty:
        raise CannotTrainError(f"{where}: the source's query returns no rows; load some first")
    for name in (model.source.id, *group):
        if count := int(frame[name].isna().sum()):
            raise CannotTrainError(
                f"{where}: column {name!r} is empty in {count} rows; each row needs a value"
            )


def _query(url: str, model: Model) -> pd.DataFrame:
    """Return the result of the source's query; its cells are read in parts, to need less memory."""
    with transaction(url, f"read the history of {model.name}") as connection:
        streamed = connection.execution_options(yield_per=PART_ROWS)
        result = streamed.execute(text(model.source.query))
        names = list(result.keys())
        # Without a type pandas would turn integers beside empty values into rounded floats.
        parts = [
            _compact(pd.DataFrame(part, columns=names, dtype=object), model.source.id)
            for part in result.partitions(PART_ROWS)
        ]
        return pd.concat(parts or [pd.DataFrame(columns=names, dtype=object)], ignore_index=True)


def _compact(part: pd.DataFrame, exact: str) -> pd.DataFrame:
    """Return a part of the rows with arrays of numbers, and with each text once in memory.

    Only integers, or only other numbers and empty cells, become an array. All else stays as it is,
    because messages show the values; so does the ``exact`` column.
    """

    def compact(values: "pd.Series[Any]") -> "pd.Series[Any]":
        kinds = set(map(type, values))
        if values.name == exact:
            return values
        if kinds == {int} and _INT64.min <= values.min() and values.max() <= _INT64.max:
            return values.astype(np.int64)
        if kinds <= {float, type(None)}:
            return values.astype(np.float64)
        if str in kinds:
            return values.map(lambda value: sys.intern(value) if type(value) is str else value)
        return values

    return pd.DataFrame({place: compact(x) for place, (_, x) in enumerate(part.items())}).set_axis(
        part.columns, axis=1
    )


def _ids(frame: pd.DataFrame, name: str, where: str) -> NDArray[np.int64]:
    """Return the ids of the rows, of shape (rows,)."""
    values = frame[name]
    table = Table(frame.set_axis(values, axis=0), where)
    whole = [
        not isinstance(value, str)
        and pd.api.types.is_number(value)
        and _INT64.min <= value <= _INT64.max
        and value == int(value)
        for value in values
    ]
    rule = "an id must be an integer of 64 bits that rises in time"
    table.refuse(name, ~np.array(whole), rule)
    ids = np.array([int(value) for value in values], dtype=np.int64)
    table.refuse(name, pd.Series(ids).duplicated().to_numpy(), "another row has the same id")
    return ids
