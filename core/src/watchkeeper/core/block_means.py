"""Means of values that depend on their neighbours: the units are blocks of consecutive rows.

Rows of machines are autocorrelated, so the variance of a mean over rows is larger than that of
independent rows. The means of blocks that are longer than the dependence are nearly independent.
"""

from typing import Final

import numpy as np

from watchkeeper.core.estimates import Estimate, Numbers, normal

BATCHES: Final = 10  # of an interval: few and long, since dependence must end within one
_QUANTILE: Final = 2.262 / 1.960  # 97.5 %: Student's t with 9 degrees of freedom, over the normal
FEWEST_BLOCKS: Final = 20  # fewer do not tell whether they are independent
_ONE_SIDED: Final = 1.645  # independent blocks look dependent in one of twenty cases


def block_length(values: Numbers, shortest: int) -> int | None:
    """Return a number of rows after which the means of blocks look independent.

    The length is doubled while the correlation of neighbouring blocks is more than chance explains:
    of n independent blocks its standard deviation is about 1 / sqrt(n) (Bartlett, Journal of the
    Royal Statistical Society B 8, 1946). With fewer than 20 blocks nobody can tell.

    Args:
        values: in time order, of shape (rows,).
        shortest: the length to begin with, at least 1.

    Returns:
        The length; None if blocks are dependent up to the length of which there are too few, or if
        there are too few blocks of the shortest length.
    """
    length = shortest
    while (count := len(values) // length) >= FEWEST_BLOCKS:
        means = values[: count * length].reshape(count, length).mean(axis=1)
        away = means - means.mean()
        spread = float(away @ away)
        if not spread or float(away[1:] @ away[:-1]) / spread <= _ONE_SIDED / count**0.5:
            return length
        length *= 2
    return None


def mean_of_dependent(values: Numbers) -> Estimate:
    """Return the mean of values from 0 to 1 with its 95 % interval, by the method of batch means.

    The variance is that of the means of ten batches (Law and Kelton, "Simulation Modeling and
    Analysis"). Values that are all alike have no variance, which a sample cannot prove: the
    interval is at least as wide as the rule of three says (Hanley and Lippman-Hand, JAMA 249,
    1983).

    Args:
        values: in time order, of shape (rows,) with ten rows or more.
    """
    means = np.array([part.mean() for part in np.array_split(values, BATCHES)])
    variance = float(means.var(ddof=1)) / BATCHES * _QUANTILE**2
    return normal(float(values.mean()), variance + (1.5 / len(values)) ** 2, 0.0, 1.0)
