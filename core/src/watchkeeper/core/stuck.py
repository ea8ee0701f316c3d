"""Stuck columns: one value in many more rows than the history of the column ever shows.

The drift watch asks this about its windows, and training about the rows of a reference.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Values = NDArray[np.float64]  # of shape (rows,); NaN is a missing value, a category is a number

BLOCKS_PER_LENGTH = 4  # blocks overlap: one starts every quarter of a block's length
FEWEST_STRETCHES = 4  # a history of fewer blocks has shorter blocks
VALUES_AT_ONCE = 1 << 15  # of the blocks, which are copied to be sorted; they fit into a cache
# A stuck share moves the Kolmogorov-Smirnov statistic by at most itself. The limit is half the
# smallest effect that counts as drift, so a stuck sensor is broken before it looks like drift.
STUCK_SHARE_OF_EFFECT = 0.5


def block_length(rows: int, length: int) -> int:
    """Return the length of the blocks of a history of so many rows, at most ``length``."""
    return max(1, min(length, rows // FEWEST_STRETCHES))


def blocks(values: Values, length: int) -> Values:
    """Return overlapping contiguous blocks of values, shape (blocks, length of a block)."""
    length = block_length(len(values), length)
    if not len(values):
        return np.empty((1, 0))
    return sliding_window_view(values, length)[:: max(1, length // BLOCKS_PER_LENGTH)]


def most_common_share(values: Values) -> float:
    """Return the share of the rows that have the most common value; missing values are rows."""
    return _most_common(values)[1]


def usual_share(history: Values, rows: int) -> float:
    """Return the largest share that one value has in a block of the history.

    Args:
        history: the values in time order; missing values are left out.
        rows: the number of rows of a block.
    """
    found = blocks(history[~np.isnan(history)], rows)
    length = found.shape[1]
    if not length:
        return 0.0
    at_once = max(1, VALUES_AT_ONCE // length)
    most = max(
        _longest_run(np.sort(found[start : start + at_once], axis=1))
        for start in range(0, len(found), at_once)
    )
    return float(most / length)


def stuck_value(
    values: Values, usual: float, minimum_effect: float, *, categorical: bool
) -> float | None:
    """Return the value that is in more rows than the history ever showed; None without one.

    Categories and zeros are stuck only if they fill all rows.

    Args:
        values: the rows.
        usual: the largest share that one value has in the history, see :func:`usual_share`.
        minimum_effect: the smallest effect that counts as drift.
        categorical: whether the values are categories.
    """
    value, share = _most_common(values)
    if share == 1.0 > usual:
        return value
    if categorical:
        return None
    # Zeros stay as rows: only their share does not count.
    value, share = _most_common(np.where(values == 0.0, np.nan, values))
    return value if share > usual + STUCK_SHARE_OF_EFFECT * minimum_effect else None


def _longest_run(ordered: Values) -> int:
    """Return how often the most common value of a block occurs; each block is sorted."""
    begins = np.ones(ordered.shape, dtype=bool)
    begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return int(np.diff(np.flatnonzero(begins), append=begins.size).max())


def _most_common(values: Values) -> tuple[float, float]:
    found, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    if not len(counts):
        return float("nan"), 0.0
    most = int(counts.argmax())
    return float(found[most]), float(counts[most] / len(values))
