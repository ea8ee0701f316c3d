"""Rows with the same features, whatever their ids, times and outcomes.

A version that was fitted on one of two equal rows knows the other one, outcome included. If the
other one is held out, random outcomes look predictable. Equal rows are therefore found before the
split, counted, and kept together.

**Equal.** FP64 values are compared after rounding to 20 binary digits, which is a relative
tolerance of about one in a million: a row that passed through FP32, or through a text with seven
digits, is still the same row. Other values are compared as they are.

**Coarse features.** Some tables have few different rows by nature, for example if all columns are
categories. Equal rows are then separate observations, and a version cannot know one by another: it
learns their rate. What the features allow by chance is the share of duplicates that is left after
each column is shuffled by itself. If this is at least one half, a row does not identify anything,
and equal rows are split like all others.

A single column stays the same when it is shuffled, so this alone would take copies for chance. But
by chance the numbers of equal rows vary at least as in a Poisson distribution, and in a table that
is loaded several times they are alike. If they vary less than half as much, nothing counts as
chance. With twenty equal rows or more on average, alike numbers prove nothing, because a balanced
experiment has them, too. A single column that is loaded twenty times is therefore not recognised.
"""

import math
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from watchkeeper.core.gate_report import HISTORY, RECENT, Duplicates
from watchkeeper.core.statistics import rounded
from watchkeeper.training import CannotTrainError
from watchkeeper.training.declaration import Model
from watchkeeper.training.rows import Rows, joined

BITS: Final = 20
COARSE: Final = 0.5  # the share of duplicates by chance
MANY: Final = 20  # equal rows, on average
MULTIPLIER: Final = np.uint64(6364136223846793005)  # any large odd number
VARIED: Final = 0.5  # the variance of the numbers of equal rows, relative to chance

Codes = NDArray[np.int64]


class Repeats(msgspec.Struct, frozen=True):
    """Which rows are equal, and how many.

    ``codes`` (rows of the history and recent rows,) is a number per row; equal rows that must stay
    together have the same number.
    """

    codes: Codes
    counted: dict[str, Duplicates]


def find_duplicates(history: Rows, recent: Rows, model: Model) -> Repeats:
    """Find the rows of history and recent rows that have equal features.

    Raises:
        CannotTrainError: the history has more duplicates than the declaration allows.
    """
    every = equal_rows(joined(history, recent).columns)
    old, new = every[: len(history)], every[len(history) :]
    limit = model.split.max_duplicates
    chance = by_chance(history.columns) if could_be_chance(old) else 0.0
    found = Duplicates(len(old), repeated(old), chance, limit)
    counted = {HISTORY: found, RECENT: Duplicates(len(new), repeated(new))}
    if limit >= 1.0 or chance >= COARSE:
        return Repeats(np.arange(len(every)), counted)
    if found.share - chance > limit:
        raise CannotTrainError(
            f"history of {model.name}: {found.repeated} of {found.rows} rows ({found.share:.1%}) "
            f"have the features of an earlier row; by chance it would be {chance:.1%}, "
            f"and split.max_duplicates allows {limit:.1%} more. Was a table loaded twice, or does "
            "a join multiply rows? Remove the duplicates in the table or in the source's query; if "
            "equal rows are observations of their own, declare max_duplicates=1.0"
        )
    return Repeats(every, counted)


def equal_rows(columns: pd.DataFrame) -> Codes:
    """Return a number per row (rows,); rows with equal features have the same number."""
    return np.asarray(pd.factorize(_hashes(columns))[0], dtype=np.int64)


def repeated(codes: Codes) -> int:
    """Return how many rows have the code of an earlier row."""
    return len(codes) - len(np.unique(codes))


def by_chance(columns: pd.DataFrame) -> float:
    """Return the share of duplicates after each column is shuffled by itself."""
    random = np.random.default_rng(0)
    shuffled = pd.DataFrame({name: random.permutation(x.to_numpy()) for name, x in columns.items()})
    return repeated(equal_rows(shuffled)) / max(len(shuffled), 1)


def first_rows(codes: Sequence[Codes]) -> Codes:
    """Return for each row the position of the first row that it is connected with; shape (rows,).

    Rows are connected if they have the same number in one of ``codes``, or if a chain of such rows
    is between them.
    """
    first = np.arange(len(codes[0]))
    while True:
        spread = first
        for each in codes:
            smallest = np.full(each.max(initial=-1) + 1, len(first))
            np.minimum.at(smallest, each, spread)
            spread = smallest[each]
        if (spread == first).all():
            return first
        first = spread


def could_be_chance(codes: Codes) -> bool:
    """Return whether the numbers of equal rows vary as they do by chance."""
    _, sizes = np.unique(codes, return_counts=True)
    mean = float(sizes.mean())
    if mean >= MANY:
        return True
    rate = mean  # of the Poisson distribution that has this mean without its zeros
    for _ in range(100):
        rate = mean * -math.expm1(-rate)
    return bool(sizes.var() >= VARIED * mean * (1.0 + rate - mean))


def _hashes(columns: pd.DataFrame) -> NDArray[np.uint64]:
    """Return a hash of each row (rows,), from one column at a time to need little memory."""
    hashes = np.zeros(len(columns), dtype=np.uint64)
    for name in columns:
        values = columns[name].to_numpy()
        compared = rounded(values, BITS) if values.dtype.kind == "f" else values
        hashes = hashes * MULTIPLIER + pd.util.hash_array(compared)
    return hashes
