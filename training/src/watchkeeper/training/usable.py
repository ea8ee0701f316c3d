"""From a table of values to rows that a version can be trained on.

Nothing is guessed. A value of the wrong type refuses the table, because the table or the
declaration must change. A row that no request can have, with an empty value of a column that is not
nullable, or with a value out of range, is left out and counted.
"""

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from watchkeeper.core.signature import MISSING_TEXT, Column
from watchkeeper.core.tasks.base import InvalidLabelError, Task
from watchkeeper.core.timestamps import seconds
from watchkeeper.training import CannotTrainError
from watchkeeper.training.declaration import Model
from watchkeeper.training.rows import Rows

log = logging.getLogger(__name__)

Mask = NDArray[np.bool_]
MAX_FLOAT: Final = float(np.finfo(np.float32).max)  # trees compute in FP32, and servers refuse more
EXACT: Final = 2**53  # models compute in FP64, which rounds integers from here on


class Table(msgspec.Struct, frozen=True):
    """Values as a database returns them, by the ids of the rows; ``where`` names the table."""

    frame: pd.DataFrame
    where: str

    def refuse(self, name: str, wrong: Mask, rule: str) -> None:
        """Refuse the table if a value of a column is wrong.

        Args:
            name: the column.
            wrong: which rows (rows,) have a wrong value.
            rule: what is right, and what the reader can do.

        Raises:
            CannotTrainError: the message has the first wrong value and the id of its row.
        """
        if not wrong.any():
            return
        value, key = self.frame[name].to_numpy()[wrong][0], self.frame.index[wrong][0]
        more = f" and {wrong.sum() - 1} more" if wrong.sum() > 1 else ""
        raise CannotTrainError(
            f"{self.where}: column {name!r} holds {_shown(value)} (row with id {key}{more}); {rule}"
        )

    def reason(self, name: str, problem: str, rows: Mask) -> str:
        """Return why rows are left out: their number, and the first of them as an example."""
        value, key = self.frame[name].to_numpy()[rows][0], self.frame.index[rows][0]
        shown = "" if pd.isna(value) or value == "" else f": {_shown(value)}"
        count = "1 row" if rows.sum() == 1 else f"{rows.sum()} rows"
        return f"column {name!r} is {problem} ({count}, such as id {key}{shown})"


def usable(frame: pd.DataFrame, model: Model, where: str, *, required: bool = False) -> Rows:
    """Turn a frame with the request columns, the truths and the declared group into rows.

    Args:
        frame: the values; its index has the ids of the rows.
        model: the declaration.
        where: names the rows in messages.
        required: whether a table without any usable row is refused.

    Raises:
        CannotTrainError: a value has the wrong type, a category is not declared, or no row can be
            used although one is required.
    """
    table = Table(frame, where)
    truths = {truth.name: _truth(table, truth.name, truth.task) for truth in model.truths}
    columns: dict[str, NDArray[Any]] = {}
    left_out: list[str] = []
    good = np.ones(len(frame), dtype=bool)
    for column in model.columns:
        columns[column.name], problems = _read(table, column)
        for problem, rows in problems.items():
            good &= ~rows
            if rows.any():
                left_out.append(table.reason(column.name, problem, rows))
    reasons = ", ".join(left_out)
    if required and not good.any():
        raise CannotTrainError(f"{where}: none of the {len(frame)} rows can be used: {reasons}")
    if left_out:
        log.warning("%s: %d of %d rows left out: %s", where, (~good).sum(), len(good), reasons)
    # One column at a time, so that no second copy of a large table is made.
    for column in model.columns:
        values = columns[column.name] if good.all() else columns[column.name][good]
        columns[column.name] = values.astype(np.int64) if column.is_integer else values
    kept = pd.DataFrame(columns)
    group = np.full(len(frame), "", dtype=object)
    if model.split.group:
        group = frame[model.split.group].map(str).to_numpy(dtype=object)
    typical = np.ones((len(kept), len(model.names)), dtype=bool)
    unknown = np.full(len(frame), np.nan)
    target, *others = (values[good] for values in truths.values() or [unknown])
    return Rows(
        kept,
        target,
        frame.index.to_numpy()[good],
        group[good],
        typical,
        dict(zip(list(truths)[1:], others, strict=True)),
    )


def _truth(table: Table, name: str, task: Task) -> NDArray[np.float64]:
    """Return the labels as numbers of shape (rows,), NaN where they are empty."""
    if task.labels_are_text:
        codes = np.array([_code(task, value) for value in table.frame[name]], dtype=np.float64)
        empty = (table.frame[name].isna() | (table.frame[name] == "")).to_numpy()
        wrong = np.isnan(codes) & ~empty
    else:
        codes = _numbers(table, name, task.rule)
        right = np.isin(codes, task.outcomes) if task.outcomes else np.isfinite(codes)
        wrong = ~np.isnan(codes) & ~right
    table.refuse(name, wrong, f"{task.rule}; convert it in the source's query")
    return codes


def _code(task: Task, value: object) -> float:
    try:
        return task.code(value)
    except InvalidLabelError:
        return float("nan")


def _read(table: Table, column: Column) -> tuple[NDArray[Any], dict[str, Mask]]:
    """Return the values of a column, and the rows that are left out, by the reason."""
    if column.datatype == "BYTES":
        values = table.frame[column.name].to_numpy(dtype=object)
        empty = pd.isna(values) | column.missing(values)
        _check_categories(table, column, empty)
        if column.nullable:
            return np.where(empty, MISSING_TEXT, values), {}
        return values, {"empty": empty}
    if column.datatype == "TIMESTAMP":
        numbers = _times(table, column.name)
    else:
        numbers = _numbers(table, column.name, "the declaration says that it is a number")
    numbers = column.rounded(numbers)
    if column.datatype == "BOOL":
        rule = "BOOL is true or false, or 1 or 0; convert it in the source's query"
        table.refuse(column.name, ~np.isnan(numbers) & ~np.isin(numbers, (0.0, 1.0)), rule)
    low, high = (
        infinite if limit is None else limit
        for limit, infinite in zip(column.limits, (-np.inf, np.inf), strict=True)
    )
    empty, infinite = np.isnan(numbers), np.abs(numbers) > MAX_FLOAT
    outside = (numbers < low) | (numbers > high)
    if column.is_integer:
        in_range = ~(empty | infinite | outside)
        table.refuse(
            column.name,
            in_range & (np.abs(numbers) >= EXACT),
            "a model computes in FP64, which rounds integers from 2^53 on; leave identifiers out, "
            "and scale times in the source's query",
        )
        table.refuse(
            column.name,
            in_range & (numbers != np.floor(numbers)),
            f"{column.datatype} has no fractions; declare FP64, or round in the source's query",
        )
    return numbers, {
        "empty": empty & (not column.nullable),
        "infinite or too large for FP32": infinite,
        "out of range": outside & ~infinite,
    }


def _check_categories(table: Table, column: Column, empty: Mask) -> None:
    values = table.frame[column.name]
    listed = f"the declaration lists {_listed(column.categories)}"
    text = values.map(lambda value: isinstance(value, str)).to_numpy(dtype=bool)
    table.refuse(
        column.name,
        ~empty & ~text,
        f"a BYTES column holds text, and {listed}; convert it with CAST in the source's query",
    )
    if column.unseen == "accept":
        return
    table.refuse(
        column.name,
        ~empty & ~values.isin(column.categories).to_numpy(),
        f"{listed}; add the category there, or correct it in the source's query",
    )


def _numbers(table: Table, name: str, rule: str) -> NDArray[np.float64]:
    """Return a column as numbers of shape (rows,), NaN where it is empty."""
    values = table.frame[name]
    numbers = np.asarray(pd.to_numeric(values, errors="coerce"), dtype=np.float64)
    empty = (values.isna() | (values == "")).to_numpy()
    table.refuse(name, np.isnan(numbers) & ~empty, f"{rule}; convert it in the source's query")
    return numbers


def _times(table: Table, name: str) -> NDArray[np.float64]:
    """Return times as seconds since 1970, NaN where they are empty; without a zone they are UTC."""
    values = table.frame[name]
    found = np.array([_time(value) for value in values], dtype=np.float64)
    empty = (values.isna() | (values == "")).to_numpy()
    table.refuse(
        name,
        np.isnan(found) & ~empty,
        "a TIMESTAMP is a time of the database, text as in RFC 3339, or seconds since 1970; "
        "convert it in the source's query",
    )
    return found


def _time(value: object) -> float:
    if isinstance(value, datetime):
        return value.replace(tzinfo=value.tzinfo or UTC).timestamp()
    try:
        if isinstance(value, str):
            return seconds(value, zone_required=False)
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")


def _shown(value: object) -> str:
    """Return a value for a message: text in quotation marks, numbers plain, others with a type."""
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else f"{value[:40]}…")
    if isinstance(value, (bool, int, float, np.number, np.bool_)):
        return f"the number {value}"
    return f"{str(value)[:40]} ({type(value).__name__})"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
