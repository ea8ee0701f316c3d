"""Rows as training sees them: request columns, truths and a key that never changes."""

import hashlib
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from watchkeeper.core.signature import Columns
from watchkeeper.core.tasks.base import Labelled


class Rows(msgspec.Struct, frozen=True):
    """Rows in time order.

    ``columns`` has the request columns in order. ``target`` (rows,) is the truth of the main head,
    or of the one that :meth:`about` was asked for; NaN where it is not known, everywhere if the
    model has no truth. ``others`` has
    the truths of the other heads in the same form, by their names. ``key`` (rows,) is the row's id
    in the source, or the id of its prediction.
    ``group`` (rows,) names what the row is about, as text; it is empty without a declared group.
    ``typical`` (rows, columns) says which values describe the traffic, see
    :mod:`watchkeeper.training.representative`; all of the history do.
    """

    columns: pd.DataFrame
    target: NDArray[np.float64]
    key: NDArray[Any]
    group: NDArray[Any]
    typical: NDArray[np.bool_]
    others: dict[str, NDArray[np.float64]] = {}

    def __len__(self) -> int:
        return len(self.target)

    def where(self, mask: NDArray[np.bool_]) -> "Rows":
        """Return the rows where ``mask`` (rows,) holds."""
        return self.take(np.flatnonzero(mask))

    def take(self, places: NDArray[np.intp]) -> "Rows":
        """Return the rows at ``places`` (rows,), counted from 0, in this order."""
        return Rows(
            self.columns.iloc[places].reset_index(drop=True),
            self.target[places],
            self.key[places],
            self.group[places],
            self.typical[places],
            {name: truth[places] for name, truth in self.others.items()},
        )

    def labelled(self) -> NDArray[np.bool_]:
        """Return of which rows (rows,) a truth is known."""
        unknown = np.isnan([self.target, *self.others.values()])
        return np.asarray(~unknown.all(axis=0))

    def knows(self, truth: str) -> NDArray[np.bool_]:
        """Return of which rows (rows,) this truth is known, see :meth:`about`."""
        return ~np.isnan(self.others.get(truth, self.target))

    def about(self, truth: str) -> "Rows":
        """Return the rows of which this truth is known, as ``target``.

        Args:
            truth: the name of a truth; any name that is not in ``others`` is that of ``target``.
        """
        rows = self.where(self.knows(truth))
        return msgspec.structs.replace(rows, target=rows.others.get(truth, rows.target), others={})

    def as_columns(self) -> Columns:
        """Return the request columns as arrays of shape (rows,)."""
        return {name: self.columns[name].to_numpy() for name in self.columns}

    def digest(self) -> str:
        """Return the SHA-256 of the rows' content, in hex."""
        frame = self.columns.copy(deep=False)  # `assign` would copy all values
        for name, values in {"target": self.target, "key": self.key, **self.others}.items():
            frame[name] = values
        return hashlib.sha256(pd.util.hash_pandas_object(frame).to_numpy().tobytes()).hexdigest()


class ScoredRows(msgspec.Struct, frozen=True):
    """Rows with a version's scores of them, one array of shape (rows,) per score."""

    rows: Rows
    scores: Columns

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, mask: NDArray[np.bool_]) -> "ScoredRows":
        """Return the rows where ``mask`` (rows,) holds."""
        return self.take(np.flatnonzero(mask))

    def take(self, places: NDArray[np.intp]) -> "ScoredRows":
        """Return the rows at ``places`` (rows,), counted from 0, in this order."""
        return ScoredRows(self.rows.take(places), {n: x[places] for n, x in self.scores.items()})

    def about(self, truth: str) -> "ScoredRows":
        """Return the rows of which this truth is known, see :meth:`Rows.about`."""
        known = self.where(self.rows.knows(truth))
        return ScoredRows(known.rows.about(truth), known.scores)

    def truth(self) -> Labelled:
        """Return target and scores; the target of all rows must be known."""
        return Labelled(self.rows.target, self.scores)

    def typical(self) -> "ScoredRows":
        """Return the rows of which some value describes the traffic."""
        return self.where(np.asarray(self.rows.typical.any(axis=1)))


def joined(first: Rows, *others: Rows) -> Rows:
    """Return the rows of all, one after the other."""
    present = [first, *(rows for rows in others if len(rows))]
    if len(present) == 1:
        return first
    keys = [rows.key for rows in present]
    if len({key.dtype.kind for key in keys}) > 1:  # NumPy would make text of numbers
        keys = [key.astype(object) for key in keys]
    return Rows(
        pd.concat([rows.columns for rows in present], ignore_index=True),
        np.concatenate([rows.target for rows in present]),
        np.concatenate(keys),
        np.concatenate([rows.group for rows in present]),
        np.concatenate([rows.typical for rows in present]),
        {name: np.concatenate([rows.others[name] for rows in present]) for name in first.others},
    )


def joined_scored(first: ScoredRows, *others: ScoredRows) -> ScoredRows:
    """Return the rows of all with their scores, one after the other."""
    return ScoredRows(
        joined(first.rows, *(other.rows for other in others)),
        {
            name: np.concatenate([first.scores[name], *(other.scores[name] for other in others)])
            for name in first.scores
        },
    )
