"""Estimates with 95 % confidence intervals.

They come from a variance, by the normal distribution, or from a Poisson bootstrap: a resample gives
each row a Poisson(1) weight (Hanley & MacGibbon, Computer Methods and Programs in Biomedicine 83,
2006), so that many resamples are one matrix of weights.
"""

from collections.abc import Callable, Iterator, Mapping
from statistics import NormalDist
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Measure = Callable[[Numbers], Numbers]
RESAMPLES: Final = 500
LEVEL: Final = 0.95
_CELLS: Final = 20_000_000  # weights of all resamples, at most: very many rows take few resamples
_PART: Final = 1_000_000  # weights in memory, at most, or those of one resample


class Estimate(msgspec.Struct, frozen=True):
    """A metric with its 95 % confidence interval; None where the metric is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None


UNDEFINED: Final = Estimate(None, None, None)


def normal(
    value: float,
    variance: float,
    least: float = -np.inf,
    greatest: float = np.inf,
    level: float = LEVEL,
) -> Estimate:
    """Return the normal interval of a value and its variance, within the possible values.

    It is not defined if the value or a bound is not finite. ``level`` is the share of such
    intervals that contain the true value.
    """
    reach = NormalDist().inv_cdf((1 + level) / 2) * variance**0.5
    low, high = max(least, value - reach), min(greatest, value + reach)
    if not np.isfinite([value, low, high]).all():
        return UNDEFINED
    return Estimate(value, low, high)


def bootstrap(rows: int, seed: int, measures: Mapping[str, Measure]) -> dict[str, Estimate]:
    """Return the bootstrap interval of each metric; all of them see the same resamples.

    Args:
        rows: the number of rows.
        seed: starts the bootstrap.
        measures: each returns its metric for each resample, of shape (resamples,), from the weights
            of the rows, of shape (resamples, rows); NaN where it is not defined.
    """
    values = {name: float(measure(np.ones((1, rows)))[0]) for name, measure in measures.items()}
    found: dict[str, list[Numbers]] = {name: [] for name in measures}
    for weights in resamples(rows, seed):
        for name, measure in measures.items():
            found[name].append(measure(weights))
    return {
        name: from_resamples(values[name], np.concatenate(parts)) for name, parts in found.items()
    }


def from_resamples(value: float, resampled: Numbers) -> Estimate:
    """Return the interval of a value from its resamples (resamples,)."""
    known = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not len(known):
        return UNDEFINED
    low, high = np.quantile(known, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Estimate(float(value), float(low), float(high))


def share(marked: NDArray[np.bool_], seed: int) -> Estimate:
    """Return the share of rows where ``marked`` (rows,) holds."""
    return mean(marked.astype(np.float64), seed)


def mean(values: Numbers, seed: int) -> Estimate:
    """Return the mean of ``values`` (rows,)."""
    return bootstrap(len(values), seed, {"": weighted_mean(values)})[""]


def weighted_mean(values: NDArray[Any]) -> Measure:
    """Return the metric that is the mean of ``values`` (rows,)."""
    return lambda weights: ratio(weights @ values, weights.sum(axis=1))


def resamples(rows: int, seed: int) -> Iterator[Numbers]:
    """Yield weights of shape (resamples, rows), in parts, so that they take little memory."""
    count = max(50, min(RESAMPLES, _CELLS // max(rows, 1)))
    random = np.random.default_rng(seed)
    size = max(1, _PART // max(rows, 1))
    for start in range(0, count, size):
        yield random.poisson(1.0, (min(size, count - start), rows)).astype(np.float64)


def unit_interval(losses: NDArray[Any]) -> Numbers:
    """Limit losses (rows,) to 0 and 1; one that is not a number is 1, the largest."""
    return np.clip(np.nan_to_num(losses.astype(np.float64), nan=1.0), 0.0, 1.0)


def ratio(above: Numbers, below: Numbers, otherwise: float = np.nan) -> Numbers:
    """Return ``above`` divided by ``below``, and ``otherwise`` where ``below`` is 0."""
    return np.divide(above, below, out=np.full_like(above, otherwise), where=below > 0)
