"""Effect sizes: how much a window differs from the reference, whatever its number of rows.

Both effect sizes are the share of the rows that would have to move to make the two samples alike,
from 0 to 1. So one ``minimum_effect`` means the same for every feature:

- numbers: the Kolmogorov-Smirnov statistic;
- categories: the total variation distance, which is half the sum of the differences of the shares
  (Gibbs and Su 2002, "On choosing and bounding probability metrics"). Cramér's V is not used,
  because it shrinks if reference and window differ in size.
"""

import numpy as np

from watchkeeper.core.drift_report import FeatureKind
from watchkeeper.drift.statistics.columns import Values


def effect_sizes(kind: FeatureKind, reference: Values, windows: Values) -> Values:
    """Return the effect size of one feature in each of several windows, from 0 to 1.

    Args:
        kind: the kind of the feature.
        reference: sorted values without NaN, shape (n,) with n >= 1.
        windows: values without NaN, shape (windows, m) with m >= 1.

    Returns:
        An array of shape (windows,).
    """
    if kind in ("categorical", "missing"):
        return _total_variation(reference, windows)
    return _kolmogorov_smirnov(reference, windows)


def effect_size(kind: FeatureKind, reference: Values, window: Values) -> float:
    """Return the effect size of one feature, from 0 to 1.

    ``reference`` is sorted and has no NaN. Missing values of the window do not count. The result
    is 0 if one of the samples has no values.
    """
    window = window[~np.isnan(window)]
    if not len(reference) or not len(window):
        return 0.0
    return float(effect_sizes(kind, reference, window[np.newaxis])[0])


def _kolmogorov_smirnov(reference: Values, windows: Values) -> Values:
    # Only the sorted reference is searched, so the costs hardly depend on its length. The largest
    # distance of the two distribution functions is at a value of the window, or just below it.
    values = np.sort(windows, axis=1)
    rows = values.shape[1]
    below = np.searchsorted(reference, values, side="left") / len(reference)
    up_to = np.searchsorted(reference, values, side="right") / len(reference)
    place = np.arange(1, rows + 1) / rows
    distances: Values = np.maximum(below - (place - 1 / rows), place - up_to).max(axis=1)
    return distances


def _total_variation(reference: Values, windows: Values) -> Values:
    moved = np.zeros(len(windows))
    for category in np.union1d(reference, windows):
        moved += np.abs((windows == category).mean(axis=1) - (reference == category).mean())
    return moved / 2


def z_score(mean: float, baseline_mean: float, baseline_std: float) -> float:
    """Return the distance of a window's mean from the baseline, in standard deviations of a row.

    The unit is the standard deviation of single rows, not the standard error of the mean. The
    result is 0 if the baseline does not vary.
    """
    return (mean - baseline_mean) / baseline_std if baseline_std > 0 else 0.0
