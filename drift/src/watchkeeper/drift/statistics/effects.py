"""Effect sizes: how much a window differs, whatever its number of rows.

Both distances say which share of the rows would have to move for the two samples to look
alike, from 0 to 1, so that one ``minimum_effect`` means the same for every feature:

- numbers: the Kolmogorov-Smirnov statistic, the largest distance of the two distribution
  functions (Massey 1951, "The Kolmogorov-Smirnov test for goodness of fit");
- categories: the total variation distance, half the summed difference of the shares (Gibbs and
  Su 2002, "On choosing and bounding probability metrics"). Cramér's V was not taken, because
  it shrinks when reference and window differ in size.

Beside them stands the z-score of the window, (mean - baseline mean) / baseline standard
deviation, as published: in units of single rows, not of the standard error.
"""

import numpy as np

from watchkeeper.drift.statistics.columns import Kind, Values


def distance(kind: Kind, reference: Values, window: Values) -> float:
    """Return the effect size of one feature; missing values are left out, 0 without any rows."""
    reference, window = reference[~np.isnan(reference)], window[~np.isnan(window)]
    if not len(reference) or not len(window):
        return 0.0
    if kind == "categorical":
        return total_variation(reference, window)
    return kolmogorov_smirnov(reference, window)


def kolmogorov_smirnov(reference: Values, window: Values) -> float:
    """Return the largest distance between the two empirical distribution functions."""
    reference, window = np.sort(reference), np.sort(window)
    both = np.concatenate([reference, window])
    below = np.searchsorted(reference, both, side="right") / len(reference)
    apart = below - np.searchsorted(window, both, side="right") / len(window)
    return float(np.abs(apart).max())


def total_variation(reference: Values, window: Values) -> float:
    """Return half the sum over all categories of the differences of their shares."""
    categories = np.union1d(reference, window)
    return float(
        sum(abs(float((reference == c).mean() - (window == c).mean())) for c in categories) / 2
    )


def z_score(mean: float, baseline_mean: float, baseline_std: float) -> float:
    """Return how many baseline standard deviations the window's mean is off; 0 if it has none."""
    return (mean - baseline_mean) / baseline_std if baseline_std > 0 else 0.0


def commonest_share(values: Values) -> float:
    """Return the share of the value that occurs most often; missing ones count as rows."""
    _, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    return float(counts.max() / len(values)) if len(counts) else 0.0
