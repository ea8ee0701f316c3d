"""Which rows are held out. Decided by ids alone, so that more rows change nothing for old ones."""

import hashlib

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from watchkeeper.training import CannotTrainError
from watchkeeper.training.declaration import Model, Split
from watchkeeper.training.rows import Rows

# Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4): multiples of the golden
# ratio's fraction spread evenly, so that the share is kept even over few blocks.
_GOLDEN = 0.6180339887498949
_OFFSET = 0.37


class Parts(msgspec.Struct, frozen=True):
    """The rows by what they are for; no row is in two of them.

    ``train`` and ``recent_train`` are fitted, ``held`` and ``recent_held`` (labelled) are what
    the gate asks; ``unseen`` are all recent rows that are not fitted, in time order, labelled
    or not. ``blocks`` (rows of ``train``) number the stretches that folds must not cut.
    """

    train: Rows
    held: Rows
    recent_train: Rows
    recent_held: Rows
    unseen: Rows
    blocks: NDArray[np.int64]


def split(history: Rows, recent: Rows, model: Model, known_rows: int = 0) -> Parts:
    """Split both sources.

    A prediction's row that is also in the history is used once, as a recent one. If it is among
    the history's first ``known_rows``, those that production was trained on, it is not asked.

    Raises:
        CannotTrainError: the history is too small to have both outcomes in both of its parts.
    """
    twin = _twins(history, recent)
    copied = np.zeros(len(history), dtype=bool)
    copied[twin[twin >= 0]] = True
    history_left = history.where(~copied)
    blocks = block_numbers(history_left.key, model.split)
    out = held_blocks(blocks, model.split)
    recent_out = held_predictions(recent.key, model.split)
    labelled = ~np.isnan(recent.target)
    fair = (twin < 0) | (twin >= known_rows)
    train, held = history_left.where(~out), history_left.where(out)
    for rows, share in ((train, "for training"), (held, "held out")):
        if len(np.unique(rows.target)) < 2:
            raise CannotTrainError(
                f"history of {model.name}: {len(history)} rows in blocks of "
                f"{model.split.block_rows} are too few: the {len(rows)} rows {share} do not "
                "have both outcomes"
            )
    return Parts(
        train=train,
        held=held,
        recent_train=recent.where(labelled & ~recent_out),
        recent_held=recent.where(labelled & recent_out & fair),
        unseen=recent.where((recent_out | ~labelled) & fair),
        blocks=blocks[~out],
    )


def block_numbers(ids: NDArray[np.int64], how: Split) -> NDArray[np.int64]:
    """Number the contiguous blocks of row ids, which begin at 1."""
    return (ids.astype(np.int64) - 1) // how.block_rows


def held_blocks(blocks: NDArray[np.int64], how: Split) -> NDArray[np.bool_]:
    """Tell which rows, by the numbers of their blocks, are held out."""
    return np.asarray((blocks * _GOLDEN + _OFFSET) % 1.0 < how.held_out)


def held_predictions(ids: NDArray[np.str_], how: Split) -> NDArray[np.bool_]:
    """Tell which predictions are held out: all rows of a request or none."""
    share = (int(hashlib.sha256(str(x).encode()).hexdigest()[:8], 16) / 2**32 for x in ids)
    return np.fromiter(share, dtype=np.float64, count=len(ids)) < how.recent_held_out


def _twins(history: Rows, recent: Rows) -> NDArray[np.int64]:
    """Return for each recent row the position of an equal one in the history, or -1."""
    ours, theirs = (pd.util.hash_pandas_object(x.columns, index=False) for x in (recent, history))
    where = pd.Series(np.arange(len(theirs)), index=theirs.to_numpy())
    where = where[~where.index.duplicated()]
    return np.asarray(where.reindex(ours.to_numpy(), fill_value=-1), dtype=np.int64)
