"""Binary: something happens (1) or does not (0). The score is its probability, or rises with it.

Versions are compared by ROC AUC, because it needs no threshold and does not depend on how frequent
the positives are. The intervals are DeLong's, see :mod:`watchkeeper.core.statistics`.

The loss of a row is the Brier score (Brier, Monthly Weather Review 78, 1950): a probability is best
by it if it is the true one. A score that is no probability has the loss 1 for a wrong decision at
the threshold of the head, and 0 for a right one.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from watchkeeper.core import statistics
from watchkeeper.core.estimates import (
    UNDEFINED,
    Estimate,
    Measure,
    Numbers,
    bootstrap,
    normal,
    ratio,
    unit_interval,
)
from watchkeeper.core.head import Head, Method
from watchkeeper.core.signature import Columns, Output
from watchkeeper.core.tasks.base import Better, Difference, InvalidLabelError, Labelled

NEGATIVE: Final = 0.0
POSITIVE: Final = 1.0
MINIMUM_OF_EACH: Final = 25  # live labels of each outcome, for each version


class Binary:
    """The task of a head with labels 0 and 1, see :class:`~watchkeeper.core.tasks.base.Task`."""

    methods: tuple[Method, ...] = (
        "predict_proba",
        "decision_function",
        "score_samples",
        "predict",
    )
    outputs: tuple[Output, ...] = ()
    outcomes: tuple[float, ...] = (NEGATIVE, POSITIVE)
    has_labels = True
    labels_are_text = False
    rule = "a label must be 0 or 1"
    metrics: Mapping[str, Better] = dict.fromkeys(
        ("accuracy", "precision", "recall", "f1", "roc_auc", "average_precision"), "higher"
    )
    quality = "ROC AUC"
    margin = 0.03
    search_metric = "average_precision"
    rare = "positive"

    def __init__(self, head: Head) -> None:
        self.head = head
        self._is_probability = head.method == "predict_proba"
        self.loss = "Brier score" if self._is_probability else "share of wrong decisions"
        self.scores: tuple[str, ...] = (head.score,)
        self.threshold: float | None = head.threshold

    def columns(self, values: NDArray[np.float64]) -> Columns:
        """Return the one score; of two probabilities that of the positive outcome."""
        return {self.head.score: values[:, 1] if values.ndim == 2 else values}

    def answer(self, scores: Columns) -> Columns:  # noqa: ARG002 - labels come from the policy
        """Return nothing: the answer policy makes labels from the score."""
        return {}

    def code(self, label: object) -> float:
        """Return 0.0 or 1.0."""
        if isinstance(label, (int, float)) and label in self.outcomes:
            return float(label)
        raise InvalidLabelError(self.rule)

    def name(self, code: float) -> str:
        """Return "0" or "1"."""
        return f"{code:g}"

    def count_rare(self, counts: Mapping[float, int]) -> int:
        """Return the number of positives."""
        return counts.get(POSITIVE, 0)

    def counts(self, target: Numbers) -> dict[str, int]:
        """Count the positives."""
        return {"positives": int((target == POSITIVE).sum())}

    def calibrated(self, rows: Labelled) -> Head:  # noqa: ARG002 - nothing to calibrate
        """Return the head as it is."""
        return self.head

    def measure(self, rows: Labelled, seed: int) -> dict[str, Estimate]:
        """Measure by all metrics; those of decisions at the head's threshold."""
        target, score = rows.target, rows.scores[self.head.score]
        positive = score >= self.head.threshold
        measures: dict[str, Measure] = {
            **_decisions(target, positive),
            "average_precision": lambda weights: average_precision(target, score, weights),
        }
        return {**bootstrap(len(target), seed, measures), "roc_auc": roc_auc(target, score)}

    def loss_scale(self, rows: Labelled) -> float:  # noqa: ARG002 - the losses have no unit
        """Return 1."""
        return 1.0

    def losses(self, rows: Labelled, scale: float) -> Numbers:  # noqa: ARG002
        """Return the squared errors of the probabilities, or 1 for each wrong decision."""
        score = rows.scores[self.head.score]
        if not self._is_probability:
            score = np.where(np.isnan(score), 1 - rows.target, score >= self.head.threshold)
        return unit_interval(np.abs(score - rows.target)) ** 2

    def search_value(self, rows: Labelled) -> float:
        """Return the average precision."""
        return float(average_precision(rows.target, rows.scores[self.head.score])[0])

    def separation(self, target: Numbers, values: Numbers) -> Estimate:
        """Return ROC AUC of a column, in the direction in which it is at least 0.5."""
        rising = roc_auc(target, values)
        return rising if (rising.value or 0.0) >= 0.5 else roc_auc(target, -values)

    def paired(self, new: Labelled, old: Labelled) -> Difference | None:
        """Compare ROC AUC; None if the rows have one outcome only."""
        pairs = [_by_outcome(rows.target, rows.scores[self.head.score]) for rows in (new, old)]
        if not all(len(scores) for scores in pairs[0]):
            return None
        value, variance = statistics.roc_auc_difference(pairs[0], pairs[1])
        areas = [statistics.roc_auc(*pair)[0] for pair in pairs]
        return Difference(areas[0], areas[1], value, variance)

    def unpaired(self, new: Labelled, old: Labelled) -> Difference | None:
        """Compare ROC AUC; None with fewer than :data:`MINIMUM_OF_EACH` labels of an outcome."""
        areas = []
        for rows in (new, old):
            positives, negatives = _by_outcome(rows.target, rows.scores[self.head.score])
            if min(len(positives), len(negatives)) < MINIMUM_OF_EACH:
                return None
            areas.append(statistics.roc_auc(positives, negatives))
        (one, variance), (other, other_variance) = areas
        return Difference(one, other, one - other, variance + other_variance)


def roc_auc(target: Numbers, score: Numbers) -> Estimate:
    """Return ROC AUC of ``score`` (rows,), where ``target`` (rows,) is 0 or 1."""
    positives, negatives = _by_outcome(target, score)
    if not (len(positives) and len(negatives)):
        return UNDEFINED
    return normal(*statistics.roc_auc(positives, negatives), 0.0, 1.0)


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
    precision = ratio(found, found + alarms, otherwise=0.0)
    return ratio((positive * precision).sum(axis=1), positive.sum(axis=1))


def _decisions(target: Numbers, positive: NDArray[np.bool_]) -> dict[str, Measure]:
    """Return the metrics of decisions: from the weights of resamples to one value for each."""

    def counts(w: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        found, missed = w @ (target * positive), w @ (target * ~positive)
        return found, missed, w @ ((1 - target) * positive)

    def accuracy(w: Numbers) -> Numbers:
        _, missed, false = counts(w)
        return ratio(w.sum(axis=1) - missed - false, w.sum(axis=1))

    def precision(w: Numbers) -> Numbers:
        found, _, false = counts(w)
        return ratio(found, found + false)

    def recall(w: Numbers) -> Numbers:
        found, missed, _ = counts(w)
        return ratio(found, found + missed)

    def f1(w: Numbers) -> Numbers:
        found, missed, false = counts(w)
        return ratio(2 * found, 2 * found + missed + false)

    return {"accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1}


def _weights_by_score(
    target: Numbers, score: Numbers, weights: Numbers | None
) -> tuple[Numbers, Numbers]:
    """Sum the weights of positives and of negatives at each distinct score, lowest first."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf) > 0)
    w = np.ones((1, len(target))) if weights is None else weights
    w, y = w[:, order], target[order]
    return np.add.reduceat(w * y, starts, axis=1), np.add.reduceat(w * (1 - y), starts, axis=1)


def _by_outcome(target: Numbers, score: Any) -> tuple[Numbers, Numbers]:
    """Return the scores of the positive and of the negative rows."""
    return score[target == POSITIVE], score[target == NEGATIVE]
