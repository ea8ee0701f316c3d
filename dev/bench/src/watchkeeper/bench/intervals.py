"""Ratios of paired measurements, with confidence bounds."""

from collections.abc import Sequence

import msgspec
import numpy as np
from scipy import stats

CONFIDENCE = 0.95


class Ratio(msgspec.Struct, frozen=True):
    """The geometric mean of paired ratios, and its one-sided 95 % bounds by Student's t."""

    mean: float
    lower: float
    upper: float


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Compare two servers by rates that were measured in pairs, right after each other.

    With a single pair the bounds are 0 and infinity, because nothing is known of the variance.
    """
    logs = np.log(np.asarray(ours, float)) - np.log(np.asarray(theirs, float))
    mean = float(logs.mean())
    if len(logs) < 2:
        return Ratio(float(np.exp(mean)), 0.0, float("inf"))
    error = logs.std(ddof=1) / np.sqrt(len(logs))
    reach = float(error * stats.t.ppf(CONFIDENCE, len(logs) - 1))
    return Ratio(float(np.exp(mean)), float(np.exp(mean - reach)), float(np.exp(mean + reach)))
