"""Rows as training sees them: request columns, target and a key that never changes."""

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

    ``columns`` has the request columns in order. ``target`` (rows,) is NaN where the truth is not
    known yet. ``key`` (rows,) is the row's id in the source, or the id of its prediction.
    ``group`` (rows,) names what the row is about, as text; it is empty without a declared group.
    ``typical`` (rows, columns) says which values describe the traffic, see
    :mod:`watchkeeper.training.representative`; all of the history do.
    """

    columns: pd.DataFrame
    target: NDArray[np.float64]
    key: NDArray[Any]
    group: NDArray[Any]
    typical: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.target)

    def where(self, mask: NDArray[np.bool_]) -> "Rows":
        """Return the rows where ``mask`` (rows,) holds."""
        return Rows(
            self.columns.loc[mask].reset_index(drop=True),
            self.target[mask],
            self.key[mask],
            self.group[mask],
            self.typical[mask],
        )

    def as_columns(self) -> Columns:
        """Return the request columns as arrays of shape (rows,)."""
        return {name: self.columns[name].to_numpy() for name in self.columns}

    def digest(self) -> str:
        """Return the SHA-256 of the rows' content, in hex."""
        frame = self.columns.assign(target=self.target, key=self.key)
        return hashlib.sha256(pd.util.hash_pandas_object(frame).to_numpy().tobytes()).hexdigest()


class ScoredRows(msgspec.Struct, frozen=True):
    """Rows with a version's scores of them, one array of shape (rows,) per score."""

    rows: Rows
    scores: Columns

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, mask: NDArray[np.bool_]) -> "ScoredRows":
        """Return the rows where ``mask`` (rows,) holds."""
        return ScoredRows(self.rows.where(mask), {n: x[mask] for n, x in self.scores.items()})

    def labelled(self) -> "ScoredRows":
        """Return the rows whose truth is known."""
        return self.where(~np.isnan(self.rows.target))

    def truth(self) -> Labelled:
        """Return target and scores; the truth of all rows must be known."""
        return Labelled(self.rows.target, self.scores)

    def typical(self) -> "ScoredRows":
        """Return the rows of which some value describes the traffic."""
        return self.where(np.asarray(self.rows.typical.any(axis=1)))


def joined(first: Rows, *others: Rows) -> Rows:
    """Return the rows of all, one after the other."""
    present = [first, *(rows for rows in others if len(rows))]
    if len(present) == 1:
        return first
    return Rows(
        pd.concat([rows.columns for rows in present], ignore_index=True),
        np.concatenate([rows.target for rows in present]),
        np.concatenate([rows.key.astype(object) for rows in present]),
        np.concatenate([rows.group for rows in present]),
        np.concatenate([rows.typical for rows in present]),
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
