"""Bounds of what was counted or timed that hold for every distribution, and the ROC AUC.

``level`` is always the probability, at most, that one bound is on the wrong side of the truth.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, bdtrc, betaincinv

Numbers = NDArray[np.float64]


def rate_above(count: int, total: int, level: float) -> float:
    """Bound a rate from below by ``count`` of ``total`` (Clopper and Pearson 1934)."""
    return float(betaincinv(count, total - count + 1, level)) if count else 0.0


def rate_below(count: int, total: int, level: float) -> float:
    """Bound a rate from above by ``count`` of ``total``, see :func:`rate_above`."""
    return float(betaincinv(count + 1, total - count, 1 - level)) if count < total else 1.0


def quantile(rising: Numbers, q: float) -> float:
    """Estimate a quantile by the observation of rank ceil(q·n), of at least one, sorted."""
    return float(rising[max(1, int(np.ceil(q * len(rising)))) - 1])


def quantile_above(rising: Numbers, q: float, level: float) -> float | None:
    """Bound a quantile from below by an observation; None where there are too few for one.

    Of n observations, Binomial(n, q) lie below the quantile: so the observation of rank j is
    above it with the probability that fewer than j do.
    """
    n = len(rising)
    rank = int(np.searchsorted(bdtr(np.arange(n), n, q), level, side="right")) if n else 0
    return float(rising[rank - 1]) if rank else None


def quantile_below(rising: Numbers, q: float, level: float) -> float | None:
    """Bound a quantile from above by an observation, see :func:`quantile_above`."""
    n = len(rising)
    beyond: NDArray[Any] = bdtrc(np.arange(n), n, q) <= level
    return float(rising[int(np.argmax(beyond))]) if beyond.any() else None


def auc(positives: Numbers, negatives: Numbers) -> tuple[float, float]:
    """Estimate the ROC AUC and the variance of the estimate (DeLong et al. 1988).

    Ties count half. A sample without any inverted pair does not prove a variance of zero, so a
    quarter of the squared reciprocal of the smaller class is added.
    """
    m, n = len(positives), len(negatives)
    of_positives = _placements(positives, negatives)
    of_negatives = 1 - _placements(negatives, positives)
    variance = of_positives.var(ddof=1) / m + of_negatives.var(ddof=1) / n
    return float(of_positives.mean()), float(variance + 0.25 / min(m, n) ** 2)


def _placements(these: Numbers, others: Numbers) -> Numbers:
    rising = np.sort(others)
    below = np.searchsorted(rising, these, side="left")
    up_to = np.searchsorted(rising, these, side="right")
    return (below + up_to) / (2 * len(others))
