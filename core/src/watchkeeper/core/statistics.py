"""Statistics that several components use. Arrays only: no data frames, no SciPy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Sample = NDArray[np.floating[Any]]


def kolmogorov_smirnov(one: Sample, other: Sample) -> float:
    """Return the two-sample Kolmogorov-Smirnov statistic.

    The statistic is the largest distance between the two empirical distribution functions
    (Massey 1951, "The Kolmogorov-Smirnov test for goodness of fit"). It is 0 for samples with the
    same distribution and 1 for samples that do not overlap, whatever their sizes.

    Args:
        one: values of shape (n,) with n >= 1, in any order, without NaN.
        other: values of shape (m,) with m >= 1, in any order, without NaN.

    Example:
        >>> kolmogorov_smirnov(np.array([1.0, 2.0, 3.0, 4.0]), np.array([3.0, 4.0]))
        0.5
    """
    one, other = np.sort(one), np.sort(other)
    both = np.concatenate([one, other])
    of_one = np.searchsorted(one, both, side="right") / len(one)
    of_other = np.searchsorted(other, both, side="right") / len(other)
    return float(np.abs(of_one - of_other).max())


def rounded(
    values: NDArray[np.float64], bits: int, least_exponent: int | None = None
) -> NDArray[np.float64]:
    """Round values to binary digits, relative to each value; -0.0 becomes 0.0.

    Args:
        values: of shape (rows,).
        bits: the number of digits.
        least_exponent: smaller values are rounded as those with this exponent of 2 are. With 1,
            values up to 2 are rounded absolutely.

    Example:
        >>> rounded(np.array([1.0 - 2e-16, 1000.3]), 16, least_exponent=1).tolist()
        [1.0, 1000.296875]
    """
    _, exponent = np.frexp(values)
    if least_exponent is not None:
        exponent = np.maximum(exponent, least_exponent)
    shift = bits - exponent
    with np.errstate(over="ignore"):  # the largest numbers would be rounded up to infinity
        found = np.ldexp(np.round(np.ldexp(values, shift)), -shift) + 0.0
    return np.where(np.isfinite(found), found, values)


def largest_difference(found: Sample, expected: Sample) -> float:
    """Return the largest difference of two scores (rows,) of the same rows.

    Scores above 1 are compared as shares of the largest one, others absolutely, such as
    probabilities. It is NaN if a value is.
    """
    apart = np.abs(found - expected).max(initial=0.0)
    return float(apart / np.abs(expected).max(initial=1.0))


def roc_auc(positives: Sample, negatives: Sample) -> tuple[float, float]:
    """Return the ROC AUC and the variance of this estimate.

    The variance is the one of DeLong, DeLong and Clarke-Pearson 1988. In a sample without any
    inverted pair it would be 0, which a sample cannot prove. A quarter of the squared reciprocal of
    the smaller class is therefore added.

    Args:
        positives: the scores of the positive rows, of shape (m,) with m >= 1.
        negatives: the scores of the negative rows, of shape (n,) with n >= 1.

    Returns:
        The probability that a positive row has a higher score than a negative row, where ties count
        half, and the variance of this estimate; infinite where an outcome has a single row.

    Example:
        >>> roc_auc(np.array([3.0, 2.0]), np.array([1.0, 2.0]))[0]
        0.875
    """
    m, n = len(positives), len(negatives)
    of_positives = _placements(positives, negatives)
    of_negatives = 1 - _placements(negatives, positives)
    variance = _variance(of_positives, of_negatives) + 0.25 / min(m, n) ** 2
    return float(of_positives.mean()), variance


def roc_auc_difference(
    one: tuple[Sample, Sample], other: tuple[Sample, Sample]
) -> tuple[float, float]:
    """Return ROC AUC of one score minus that of another score of the same rows, and its variance.

    The variance is the one of DeLong, DeLong and Clarke-Pearson 1988 for paired scores.

    Args:
        one: the scores of the positive rows, of shape (m,) with m >= 1, and of the negative rows,
            of shape (n,) with n >= 1.
        other: the other scores of the same rows, in the same order.

    Returns:
        The difference, from -1 to 1, and the variance of this estimate: 0 for equal rankings,
        infinite where an outcome has a single row.
    """
    of_positives = _placements(*one) - _placements(*other)
    of_negatives = _placements(other[1], other[0]) - _placements(one[1], one[0])
    return float(of_positives.mean()), _variance(of_positives, of_negatives)


def _variance(of_positives: Sample, of_negatives: Sample) -> float:
    m, n = len(of_positives), len(of_negatives)
    if min(m, n) < 2:
        return float("inf")
    return float(of_positives.var(ddof=1) / m + of_negatives.var(ddof=1) / n)


def _placements(values: Sample, others: Sample) -> Sample:
    """Return the share of ``others`` below each value; those equal to it count half."""
    rising = np.sort(others)
    below = np.searchsorted(rising, values, side="left")
    up_to = np.searchsorted(rising, values, side="right")
    return (below + up_to) / (2 * len(others))
