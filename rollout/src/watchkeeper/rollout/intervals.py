"""Confidence bounds that hold for every distribution.

``level`` is the largest probability that a bound is on the wrong side of the true value.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, bdtrc, betaincinv

Numbers = NDArray[np.float64]


def rate_lower_bound(count: int, total: int, level: float) -> float:
    """Return a lower bound of a rate of which ``count`` of ``total`` were observed.

    Clopper and Pearson 1934.
    """
    return float(betaincinv(count, total - count + 1, level)) if count else 0.0


def rate_upper_bound(count: int, total: int, level: float) -> float:
    """Return an upper bound of a rate, see :func:`rate_lower_bound`."""
    return float(betaincinv(count + 1, total - count, 1 - level)) if count < total else 1.0


def quantile(rising: Numbers, q: float) -> float:
    """Estimate a quantile by the observation of rank ceil(q·n).

    Args:
        rising: sorted observations of shape (n,), n >= 1.
        q: the quantile, from 0 to 1.
    """
    return float(rising[max(1, int(np.ceil(q * len(rising)))) - 1])


def quantile_lower_bound(rising: Numbers, q: float, level: float) -> float | None:
    """Return an observation that is a lower bound of a quantile; None if there are too few.

    Of n observations, Binomial(n, q) lie below the quantile. The observation of rank j is therefore
    above the quantile with the probability that fewer than j do.
    """
    n = len(rising)
    rank = int(np.searchsorted(bdtr(np.arange(n), n, q), level, side="right")) if n else 0
    return float(rising[rank - 1]) if rank else None


def quantile_upper_bound(rising: Numbers, q: float, level: float) -> float | None:
    """Return an upper bound of a quantile, see :func:`quantile_lower_bound`."""
    n = len(rising)
    beyond: NDArray[Any] = bdtrc(np.arange(n), n, q) <= level
    return float(rising[int(np.argmax(beyond))]) if beyond.any() else None
