"""Regression: a number. The score is the predicted number.

Versions are compared by the mean absolute error, relative to that of the other version: a margin of
0.05 allows an error that is 5 % larger, in any unit.

A prediction interval comes from split-conformal calibration (Lei et al., "Distribution-free
predictive inference for regression", JASA 113, 2018): its reach is a quantile of the absolute
errors on rows that the version was not fitted on. If new rows are exchangeable with these, it
contains the truth with the probability that the level says.

The loss of a row is its absolute error as a share of the 99th percentile of these errors on rows
that the version was not fitted on, and 1 beyond it. So a few extreme errors cannot dominate a mean.
"""

import math
from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.core.estimates import (
    UNDEFINED,
    Estimate,
    Measure,
    Numbers,
    bootstrap,
    normal,
    ratio,
    unit_interval,
    weighted_mean,
)
from watchkeeper.core.head import Head, Interval, Method
from watchkeeper.core.signature import Columns, Output
from watchkeeper.core.tasks.base import Better, Difference, InvalidLabelError, Labelled

MINIMUM_LABELS: Final = 50  # live labels of each version
SCALE_QUANTILE: Final = 0.99  # of the absolute errors of unseen rows: the error with the loss 1


class Regression:
    """The task of a head that predicts a number, see :class:`~watchkeeper.core.tasks.base.Task`."""

    methods: tuple[Method, ...] = ("predict",)
    outcomes: tuple[float, ...] = ()
    threshold: float | None = None
    has_labels = True
    labels_are_text = False
    rule = "a label must be a finite number"
    metrics: Mapping[str, Better] = {
        "r2": "higher",
        "mean_absolute_error": "lower",
        "root_mean_squared_error": "lower",
        "coverage": "higher",
    }
    quality = "mean absolute error"
    margin = 0.2  # relative: a version that learns a new regime is less exact in the old one
    search_metric = "r2"
    loss = "absolute error as a share of the 99th percentile of unseen rows"
    rare = ""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.scores: tuple[str, ...] = (head.score,)
        self._low, self._high = f"{head.score}_low", f"{head.score}_high"
        self.outputs: tuple[Output, ...] = (
            (Output(self._low, "FP64"), Output(self._high, "FP64")) if head.interval else ()
        )

    def columns(self, values: NDArray[np.float64]) -> Columns:
        """Return the one score."""
        return {self.head.score: values.reshape(-1)}

    def answer(self, scores: Columns) -> Columns:
        """Return the ends of the prediction interval, if the head has one."""
        if self.head.interval is None:
            return {}
        value, reach = scores[self.head.score], self.head.interval.reach
        return {self._low: value - reach, self._high: value + reach}

    def code(self, label: object) -> float:
        """Return the number."""
        if isinstance(label, bool) or not isinstance(label, (int, float)):
            raise InvalidLabelError(self.rule)
        try:
            number = float(label)
        except OverflowError:
            raise InvalidLabelError(self.rule) from None
        if not math.isfinite(number):
            raise InvalidLabelError(self.rule)
        return number

    def name(self, code: float) -> str:
        """Return the number as text."""
        return f"{code:g}"

    def count_rare(self, counts: Mapping[float, int]) -> int:
        """Return the number of all labels."""
        return sum(counts.values())

    def counts(self, target: Numbers) -> dict[str, int]:  # noqa: ARG002
        """Count nothing but the rows."""
        return {}

    def calibrated(self, rows: Labelled) -> Head:
        """Return the head with the reach of its interval."""
        declared = self.head.interval
        if declared is None:
            return self.head
        interval = conformal_interval(self._errors(rows), declared.level)
        if interval is None:
            raise ValueError(
                f"an interval of level {declared.level:g} needs more than {len(rows)} held-out rows"
            )
        return msgspec.structs.replace(self.head, interval=interval)

    def measure(self, rows: Labelled, seed: int) -> dict[str, Estimate]:
        """Measure by all metrics; the coverage is that of the head's interval, if it has one."""
        target, error = rows.target, self._errors(rows)

        def r2(w: Numbers) -> Numbers:
            total = w.sum(axis=1)
            # Centred first, so that large values do not cancel.
            away = target - target.mean()
            spread = w @ away**2 - ratio((w @ away) ** 2, total)
            return 1.0 - ratio(w @ error**2, spread)

        squared = weighted_mean(error**2)
        measures: dict[str, Measure] = {
            "r2": r2,
            "mean_absolute_error": weighted_mean(error),
            "root_mean_squared_error": lambda w: np.sqrt(squared(w)),
        }
        if self.head.interval:
            inside = (error <= self.head.interval.reach).astype(np.float64)
            measures["coverage"] = weighted_mean(inside)
        return {**dict.fromkeys(self.metrics, UNDEFINED), **bootstrap(len(target), seed, measures)}

    def loss_scale(self, rows: Labelled) -> float:
        """Return the absolute error that has the loss 1, in the unit of the score."""
        return float(np.quantile(self._errors(rows), SCALE_QUANTILE))

    def losses(self, rows: Labelled, scale: float) -> Numbers:
        """Return the absolute errors as shares of ``scale``, at most 1.

        If the version made no error on the rows of the scale, each error has the loss 1.
        """
        with np.errstate(over="ignore"):  # of a score that is far beyond any value
            errors = self._errors(rows)
        return unit_interval(np.minimum(errors, scale) / scale if scale > 0 else errors > 0)

    def search_value(self, rows: Labelled) -> float:
        """Return the coefficient of determination."""
        spread = float(((rows.target - rows.target.mean()) ** 2).sum())
        return 1.0 - float((self._errors(rows) ** 2).sum()) / spread if spread else -math.inf

    def separation(self, target: Numbers, values: Numbers) -> Estimate:
        """Return the absolute rank correlation (Spearman's) of a column with the truth."""
        ranks = [_ranks(target), _ranks(values)]
        if min(rank.std() for rank in ranks) == 0.0:
            return UNDEFINED
        value = abs(float(np.corrcoef(ranks[0], ranks[1])[0, 1]))
        if value > 1.0 - 1e-12:
            return Estimate(1.0, 1.0, 1.0)
        # Fisher's transform has the variance 1.06 / (n - 3) for ranks.
        moved = normal(math.atanh(value), 1.06 / max(len(target) - 3, 1))
        return Estimate(value, *(math.tanh(x or 0.0) for x in (moved.low, moved.high)))

    def paired(self, new: Labelled, old: Labelled) -> Difference | None:
        """Compare the errors of the same rows; None with fewer than two rows or without error."""
        one, other = self._errors(new), self._errors(old)
        if len(one) < 2 or not other.mean():
            return None
        gain = float((other.mean() - one.mean()) / other.mean())
        # The delta method for a ratio of two means.
        residual = (other - one) - gain * other
        variance = float(residual.var(ddof=1)) / len(one) / float(other.mean()) ** 2
        return Difference(float(one.mean()), float(other.mean()), gain, variance)

    def unpaired(self, new: Labelled, old: Labelled) -> Difference | None:
        """Compare the errors; None with fewer than :data:`MINIMUM_LABELS` labels."""
        one, other = self._errors(new), self._errors(old)
        if min(len(one), len(other)) < MINIMUM_LABELS or not other.mean():
            return None
        times = float(one.mean() / other.mean())
        variance = (
            one.var(ddof=1) / len(one) + times**2 * other.var(ddof=1) / len(other)
        ) / other.mean() ** 2
        return Difference(float(one.mean()), float(other.mean()), 1.0 - times, float(variance))

    def _errors(self, rows: Labelled) -> Numbers:
        return np.abs(rows.scores[self.head.score] - rows.target)


def conformal_interval(errors: Numbers, level: float) -> Interval | None:
    """Return the prediction interval of a level from absolute errors (rows,) of unseen rows.

    None if there are too few rows for the level.
    """
    rank = math.ceil((len(errors) + 1) * level)
    if rank > len(errors):
        return None
    return Interval(level, float(np.sort(errors)[rank - 1]))


def _ranks(values: Numbers) -> Numbers:
    """Return the ranks of values (rows,); equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts).astype(np.float64)
    return np.asarray((last - (counts - 1) / 2)[inverse])
