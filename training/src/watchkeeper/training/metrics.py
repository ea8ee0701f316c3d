"""Metrics of a score against the truth, with 95 % confidence intervals.

The intervals of ROC AUC are DeLong's, see :mod:`watchkeeper.core.statistics`. All others come from
a Poisson bootstrap: a resample gives each row a Poisson(1) weight (Hanley & MacGibbon, Computer
Methods and Programs in Biomedicine 83, 2006), so that all resamples are one matrix of weights.
"""

from collections.abc import Callable
from statistics import NormalDist
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from watchkeeper.core import statistics
from watchkeeper.core.gate_report import Estimate
from watchkeeper.core.labels import NEGATIVE, POSITIVE

Numbers = NDArray[np.float64]
Metric = Literal["accuracy", "precision", "recall", "f1", "roc_auc", "average_precision"]
METRICS: Final[tuple[Metric, ...]] = get_args(Metric)
RESAMPLES: Final = 500
LEVEL: Final = 0.95


def average_precision(target: Numbers, score: Numbers, weights: Numbers | None = None) -> Numbers:
    """Return the precision summed over the steps in recall, without interpolation.

    Args:
        target: the truth, 0 or 1, of shape (rows,).
        score: of shape (rows,).
        weights: of shape (resamples, rows); None counts every row once.

    Returns:
        One value per resample, of shape (resamples,) or (1,); NaN where no positive has weight.
    """
    positive, negative = (part[:, ::-1] for part in _weights_by_score(target, score, weights))
    found, alarms = np.cumsum(positive, axis=1), np.cumsum(negative, axis=1)
    precision = _ratio(found, found + alarms, otherwise=0.0)
    return _ratio((positive * precision).sum(axis=1), positive.sum(axis=1))


def score_metrics(
    target: Numbers, score: Numbers, threshold: float, seed: int
) -> dict[str, Estimate]:
    """Measure a score by all of :data:`METRICS`.

    Args:
        target: the truth, 0 or 1, of shape (rows,).
        score: of shape (rows,).
        threshold: scores of at least this value count as positive in the metrics of decisions.
        seed: starts the bootstrap.
    """
    positive = score >= threshold
    measures: dict[Metric, Callable[[Numbers | None], Numbers]] = {
        "accuracy": _of_decision("accuracy", target, positive),
        "precision": _of_decision("precision", target, positive),
        "recall": _of_decision("recall", target, positive),
        "f1": _of_decision("f1", target, positive),
        "average_precision": lambda weights: average_precision(target, score, weights),
    }
    weights = resamples(len(target), seed)
    return {
        **{
            name: _estimate(measure(None)[0], measure(weights))
            for name, measure in measures.items()
        },
        "roc_auc": roc_auc(target, score),
    }


def roc_auc(target: Numbers, score: Numbers) -> Estimate:
    """Return ROC AUC of ``score`` (rows,), where ``target`` (rows,) is 0 or 1."""
    if target.min() == target.max():
        return Estimate(None, None, None)
    return _normal(statistics.roc_auc(*_by_outcome(target, score)), 0.0, 1.0)


def auc_difference(target: Numbers, new: Numbers, old: Numbers) -> Estimate:
    """Return ROC AUC of ``new`` minus ROC AUC of ``old``, scores (rows,) of the same rows."""
    if target.min() == target.max():
        return Estimate(None, None, None)
    both = _by_outcome(target, new), _by_outcome(target, old)
    return _normal(statistics.roc_auc_difference(*both), -1.0, 1.0)


def share(marked: NDArray[np.bool_], seed: int) -> Estimate:
    """Return the share of rows where ``marked`` (rows,) holds."""
    weights = resamples(len(marked), seed)
    return _estimate(float(marked.mean()), _ratio(weights @ marked, weights.sum(axis=1)))


def mean(values: Numbers, seed: int) -> Estimate:
    """Return the mean of ``values`` (rows,)."""
    weights = resamples(len(values), seed)
    means = weights @ values / np.maximum(weights.sum(axis=1), 1.0)
    return _estimate(float(values.mean()), means)


def resamples(rows: int, seed: int) -> Numbers:
    """Return weights of shape (resamples, rows); very many rows get fewer resamples."""
    count = max(50, min(RESAMPLES, 20_000_000 // max(rows, 1)))
    return np.random.default_rng(seed).poisson(1.0, (count, rows)).astype(np.float64)


def _of_decision(
    metric: Literal["accuracy", "precision", "recall", "f1"],
    target: Numbers,
    positive: NDArray[np.bool_],
) -> Callable[[Any], Numbers]:
    def measure(weights: Numbers | None) -> Numbers:
        w = np.ones((1, len(target))) if weights is None else weights
        found, missed = w @ (target * positive), w @ (target * ~positive)
        false = w @ ((1 - target) * positive)
        if metric == "accuracy":
            return _ratio(w.sum(axis=1) - missed - false, w.sum(axis=1))
        if metric == "f1":
            return _ratio(2 * found, 2 * found + missed + false)
        return _ratio(found, found + (false if metric == "precision" else missed))

    return measure


def _weights_by_score(
    target: Numbers, score: Numbers, weights: Numbers | None
) -> tuple[Numbers, Numbers]:
    """Sum the weights of positives and of negatives at each distinct score, lowest first."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf) > 0)
    w = np.ones((1, len(target))) if weights is None else weights
    w, y = w[:, order], target[order]
    return np.add.reduceat(w * y, starts, axis=1), np.add.reduceat(w * (1 - y), starts, axis=1)


def _by_outcome(target: Numbers, score: Numbers) -> tuple[Numbers, Numbers]:
    """Return the scores of the positive and of the negative rows."""
    return score[target == POSITIVE], score[target == NEGATIVE]


def _normal(estimate: tuple[float, float], least: float, greatest: float) -> Estimate:
    """Return the normal interval of a value and its variance, within the possible values."""
    value, variance = estimate
    reach = NormalDist().inv_cdf((1 + LEVEL) / 2) * variance**0.5
    return Estimate(value, max(least, value - reach), min(greatest, value + reach))


def _ratio(above: Numbers, below: Numbers, otherwise: float = np.nan) -> Numbers:
    return np.divide(above, below, out=np.full_like(above, otherwise), where=below > 0)


def _estimate(value: float, resampled: Numbers) -> Estimate:
    known = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not len(known):
        return Estimate(None, None, None)
    low, high = np.quantile(known, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Estimate(float(value), float(low), float(high))
