"""Rows as training sees them: request columns, target and a key that never changes."""

import hashlib
import logging
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from watchkeeper.contracts.answer import Columns
from watchkeeper.contracts.signature import Column
from watchkeeper.training import CannotTrainError
from watchkeeper.training.declaration import Model

log = logging.getLogger(__name__)


class Rows(msgspec.Struct, frozen=True):
    """Rows in time order.

    ``columns`` has the request columns in order, ``target`` (rows,) holds NaN where it is not
    known yet, ``key`` (rows,) the row's id in the source, or the id of its prediction.
    """

    columns: pd.DataFrame
    target: NDArray[np.float64]
    key: NDArray[Any]

    def __len__(self) -> int:
        return len(self.target)

    def where(self, mask: NDArray[np.bool_]) -> "Rows":
        """Return the rows where ``mask`` (rows,) holds."""
        return Rows(
            self.columns.loc[mask].reset_index(drop=True), self.target[mask], self.key[mask]
        )

    def newest(self, count: int) -> "Rows":
        """Return the last ``count`` rows."""
        return self.where(np.arange(len(self)) >= len(self) - count)

    def as_columns(self) -> Columns:
        """Return the request columns as arrays of shape (rows,)."""
        return {name: self.columns[name].to_numpy() for name in self.columns}

    def digest(self) -> str:
        """Return the SHA-256 of what the rows hold, in hex."""
        frame = self.columns.assign(target=self.target, key=self.key)
        return hashlib.sha256(pd.util.hash_pandas_object(frame).to_numpy().tobytes()).hexdigest()


def joined(first: Rows, second: Rows) -> Rows:
    """Return the rows of both, one after the other."""
    if not len(second):
        return first
    return Rows(
        pd.concat([first.columns, second.columns], ignore_index=True),
        np.concatenate([first.target, second.target]),
        np.concatenate([first.key.astype(object), second.key.astype(object)]),
    )


def usable(frame: pd.DataFrame, model: Model, where: str) -> Rows:
    """Turn a frame with the request columns, the target and ``key`` into rows.

    Rows that a request could not have (nothing there, out of range) are left out and counted.

    Raises:
        CannotTrainError: a value of another kind, or a category that is not declared.
    """
    good = np.ones(len(frame), dtype=bool)
    columns: dict[str, Any] = {}
    for column in model.columns:
        present = frame[column.name].notna().to_numpy()
        if column.datatype == "BYTES":
            columns[column.name] = _categories(frame.loc[present, column.name], column, where)
        else:
            values = _numbers(frame[column.name], where)
            low, high = _or(column.minimum, -np.inf), _or(column.maximum, np.inf)
            present = present & (values >= low) & (values <= high)
            columns[column.name] = pd.Series(values, index=frame.index)
        good &= present
    target = _numbers(frame[model.target], where)
    if dropped := int((~good).sum()):
        log.warning(
            "%s: %d of %d rows are empty or out of range, left out", where, dropped, len(good)
        )
    table = pd.DataFrame(columns, index=frame.index)[model.names].loc[good].reset_index(drop=True)
    whole = {column.name: np.int64 for column in model.columns if column.datatype == "INT64"}
    for name in whole:
        if (table[name] % 1 != 0).any():
            raise CannotTrainError(f"{where}: column {name!r} holds fractions, but is INT64")
    table = table.astype(whole)
    return Rows(table, target[good], frame["key"].to_numpy()[good])


def _categories(values: "pd.Series[Any]", column: Column, where: str) -> "pd.Series[Any]":
    strange = sorted(set(values.unique()) - set(column.categories), key=str)
    if strange:
        raise CannotTrainError(
            f"{where}: column {column.name!r} holds {strange[0]!r}; the declaration lists "
            f"{', '.join(column.categories)}"
        )
    return values.astype(object)


def _numbers(values: "pd.Series[Any]", where: str) -> NDArray[np.float64]:
    try:
        return np.asarray(pd.to_numeric(values), dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise CannotTrainError(
            f"{where}: column {values.name!r} is not numeric: {error}"
        ) from error


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
