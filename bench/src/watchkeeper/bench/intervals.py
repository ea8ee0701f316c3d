"""Paired ratios: what one round says about two servers, and all rounds together."""

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
    """Compare rates that were measured in the same rounds, one of each a round.

    With a single round the bounds are 0 and infinity: one round says nothing about the next.
    """
    logs = np.log(np.asarray(ours, float)) - np.log(np.asarray(theirs, float))
    mean = float(logs.mean())
    if len(logs) < 2:
        return Ratio(float(np.exp(mean)), 0.0, float("inf"))
    error = logs.std(ddof=1) / np.sqrt(len(logs))
    reach = float(error * stats.t.ppf(CONFIDENCE, len(logs) - 1))
    return Ratio(float(np.exp(mean)), float(np.exp(mean - reach)), float(np.exp(mean + reach)))
