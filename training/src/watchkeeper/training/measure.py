"""Metrics of a score against what turned out true, with intervals from a Poisson bootstrap.

A resample gives each row a Poisson(1) weight (Hanley & MacGibbon, Computer Methods and Programs
in Biomedicine 83, 2006), so that all resamples are one matrix and paired differences are free.
"""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
RESAMPLES = 500
LEVEL = 0.95


class Estimate(msgspec.Struct, frozen=True):
    """A metric with its 95 % confidence interval; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


def roc_auc(target: Numbers, score: Numbers, weights: Numbers | None = None) -> Numbers:
    """Area under the ROC curve; ties count half.

    ``target`` and ``score`` have shape (rows,), ``weights`` (resamples, rows); shape (resamples,).
    """
    positive, negative = _by_score(target, score, weights)
    below = np.cumsum(negative, axis=1) - negative
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    return _ratio((positive * (below + negative / 2)).sum(axis=1), pairs)


def average_precision(target: Numbers, score: Numbers, weights: Numbers | None = None) -> Numbers:
    """Precision summed over the steps in recall, without interpolation; shapes as above."""
    positive, negative = (part[:, ::-1] for part in _by_score(target, score, weights))
    found, alarms = np.cumsum(positive, axis=1), np.cumsum(negative, axis=1)
    precision = _ratio(found, found + alarms, otherwise=0.0)
    return _ratio((positive * precision).sum(axis=1), positive.sum(axis=1))


def metrics(target: Numbers, score: Numbers, threshold: float, seed: int) -> dict[str, Estimate]:
    """Measure a score: ROC AUC and average precision, and four metrics at ``threshold``."""
    found: dict[str, Callable[[Numbers | None], Numbers]] = {
        name: _at(name, target, score >= threshold)
        for name in ("accuracy", "precision", "recall", "f1")
    }
    found["roc_auc"] = lambda weights: roc_auc(target, score, weights)
    found["average_precision"] = lambda weights: average_precision(target, score, weights)
    weights = resamples(len(target), seed)
    return {name: _estimate(metric(None)[0], metric(weights)) for name, metric in found.items()}


def share(marked: NDArray[np.bool_], seed: int) -> Estimate:
    """The share of rows where ``marked`` (rows,) holds."""
    weights = resamples(len(marked), seed)
    return _estimate(float(marked.mean()), _ratio(weights @ marked, weights.sum(axis=1)))


def auc_difference(target: Numbers, new: Numbers, old: Numbers, seed: int) -> Estimate:
    """By how much ``new`` ranks the same rows better than ``old``, by paired resamples."""
    weights = resamples(len(target), seed)
    value = roc_auc(target, new)[0] - roc_auc(target, old)[0]
    return _estimate(value, roc_auc(target, new, weights) - roc_auc(target, old, weights))


def resamples(rows: int, seed: int) -> Numbers:
    """Return weights of shape (resamples, rows); fewer resamples of very many rows."""
    count = max(50, min(RESAMPLES, 20_000_000 // max(rows, 1)))
    return np.random.default_rng(seed).poisson(1.0, (count, rows)).astype(np.float64)


def _at(metric: str, target: Numbers, alarm: NDArray[np.bool_]) -> Callable[[Any], Numbers]:
    def measure(weights: Numbers | None) -> Numbers:
        w = np.ones((1, len(target))) if weights is None else weights
        hit, miss = w @ (target * alarm), w @ (target * ~alarm)
        false = w @ ((1 - target) * alarm)
        if metric == "accuracy":
            return _ratio(w.sum(axis=1) - miss - false, w.sum(axis=1))
        if metric == "f1":
            return _ratio(2 * hit, 2 * hit + miss + false)
        return _ratio(hit, hit + (false if metric == "precision" else miss))

    return measure


def _by_score(target: Numbers, score: Numbers, weights: Numbers | None) -> tuple[Numbers, Numbers]:
    """Sum up the weights of positives and negatives at each distinct score, lowest first."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf) > 0)
    w = np.ones((1, len(target))) if weights is None else weights
    w, y = w[:, order], target[order]
    return np.add.reduceat(w * y, starts, axis=1), np.add.reduceat(w * (1 - y), starts, axis=1)


def _ratio(above: Numbers, below: Numbers, otherwise: float = np.nan) -> Numbers:
    return np.divide(above, below, out=np.full_like(above, otherwise), where=below > 0)


def _estimate(value: float, resampled: Numbers) -> Estimate:
    known = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not len(known):
        return Estimate(None, None, None)
    low, high = np.quantile(known, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Estimate(float(value), float(low), float(high))
