"""Multi-class: one of several classes. There is a score for each class, usually its probability.

The answer names the class with the largest score. Versions are compared by balanced accuracy: the
share of each class that is recognised, averaged over the classes. So a frequent class cannot hide
that a rare one is missed.

The loss of a row is half the squared distance of its scores to 1 for the true class and 0 for the
others: the Brier score of several classes (Brier, Monthly Weather Review 78, 1950), divided by its
largest value.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watchkeeper.core import statistics
from watchkeeper.core.estimates import (
    UNDEFINED,
    Estimate,
    Numbers,
    bootstrap,
    normal,
    ratio,
    unit_interval,
    weighted_mean,
)
from watchkeeper.core.head import Head, Method
from watchkeeper.core.signature import Columns, Output
from watchkeeper.core.tasks.base import Better, Difference, InvalidLabelError, Labelled

MINIMUM_OF_EACH: Final = 25  # live labels of a class, for each version
_LEAST_PROBABILITY: Final = 1e-15


class Multiclass:
    """The task of a head with classes, see :class:`~watchkeeper.core.tasks.base.Task`.

    A label is stored as the place of its class, from 0. A later version may add classes behind the
    others, so a stored label keeps its meaning.
    """

    methods: tuple[Method, ...] = ("predict_proba",)
    threshold: float | None = None
    has_labels = True
    labels_are_text = True
    metrics: Mapping[str, Better] = {
        "accuracy": "higher",
        "balanced_accuracy": "higher",
        "macro_f1": "higher",
        "log_loss": "lower",
    }
    quality = "balanced accuracy"
    margin = 0.03
    search_metric = "balanced_accuracy"
    loss = "Brier score"
    rare = "outside the most frequent class"

    def __init__(self, head: Head) -> None:
        if len(head.classes) < 2 or len(set(head.classes)) < len(head.classes):
            raise ValueError(
                f"classes are {list(head.classes)}; the task multiclass needs at least two, and "
                "each once"
            )
        self.head = head
        self.scores = tuple(f"{head.score}_{name}" for name in head.classes)
        self.outputs: tuple[Output, ...] = (Output(head.score, "BYTES", head.classes),)
        self.outcomes = tuple(float(place) for place in range(len(head.classes)))
        listed = ", ".join(repr(name) for name in head.classes)
        self.rule = f"a label must be one of the classes {listed}"
        self._places = {name: float(place) for place, name in enumerate(head.classes)}
        self._names = np.array(head.classes, dtype=object)

    def columns(self, values: NDArray[np.float64]) -> Columns:
        """Return the score of each class, from ``values`` (rows, classes)."""
        return {name: values[:, place] for place, name in enumerate(self.scores)}

    def answer(self, scores: Columns) -> Columns:
        """Return the class with the largest score; of equal scores the first class."""
        return {self.head.score: self._names[self._decide(scores)]}

    def code(self, label: object) -> float:
        """Return the place of a class; a whole number is the class of this name."""
        if isinstance(label, (int, float, np.number)) and float(label).is_integer():
            label = str(int(label))
        if not isinstance(label, str) or label not in self._places:
            raise InvalidLabelError(self.rule)
        return self._places[label]

    def name(self, code: float) -> str:
        """Return the name of a class."""
        return self.head.classes[int(code)]

    def count_rare(self, counts: Mapping[float, int]) -> int:
        """Return the number of labels outside the most frequent class."""
        return sum(counts.values()) - max(counts.values(), default=0)

    def counts(self, target: Numbers) -> dict[str, int]:
        """Count the labels of each class."""
        return {self.name(code): int((target == code).sum()) for code in self.outcomes}

    def calibrated(self, rows: Labelled) -> Head:  # noqa: ARG002 - nothing to calibrate
        """Return the head as it is."""
        return self.head

    def measure(self, rows: Labelled, seed: int) -> dict[str, Estimate]:
        """Measure by all metrics; a class without rows does not count."""
        target, decided = rows.target, self._decide(rows.scores)
        right = (decided == target).astype(np.float64)
        loss = -np.log(np.maximum(self._of_truth(rows), _LEAST_PROBABILITY))
        present = [code for code in self.outcomes if (target == code).any()]

        def recalls(w: Numbers) -> Numbers:
            found = [
                ratio((w * (target == code)) @ right, w @ (target == code).astype(np.float64))
                for code in present
            ]
            return np.asarray(np.mean(found, axis=0))

        def macro_f1(w: Numbers) -> Numbers:
            found = []
            for code in present:
                true, said = target == code, decided == code
                hits = w @ (true & said).astype(np.float64)
                both = w @ true.astype(np.float64) + w @ said.astype(np.float64)
                found.append(ratio(2 * hits, both))
            return np.asarray(np.mean(found, axis=0))

        measures = {
            "accuracy": weighted_mean(right),
            "balanced_accuracy": recalls,
            "macro_f1": macro_f1,
            "log_loss": weighted_mean(loss),
        }
        return bootstrap(len(target), seed, measures)

    def loss_scale(self, rows: Labelled) -> float:  # noqa: ARG002 - the losses have no unit
        """Return 1."""
        return 1.0

    def losses(self, rows: Labelled, scale: float) -> Numbers:  # noqa: ARG002
        """Return half the squared distance to the true class, from 0 to 1."""
        scores = np.stack([rows.scores[name] for name in self.scores], axis=1)
        truth = rows.target[:, np.newaxis] == np.array(self.outcomes)
        away = np.clip(np.abs(scores - truth), 0.0, 1.0)
        return unit_interval((away**2).sum(axis=1) / 2)

    def search_value(self, rows: Labelled) -> float:
        """Return the balanced accuracy."""
        right = self._decide(rows.scores) == rows.target
        return float(np.mean([right[rows.target == x].mean() for x in np.unique(rows.target)]))

    def separation(self, target: Numbers, values: Numbers) -> Estimate:
        """Return the smallest ROC AUC between neighbouring classes, ordered by their mean value.

        It is 1 if and only if each class has an interval of values of its own.
        """
        classes = sorted(np.unique(target), key=lambda code: values[target == code].mean())
        areas = [
            normal(*statistics.roc_auc(values[target == high], values[target == low]), 0.0, 1.0)
            for low, high in pairwise(classes)
        ]
        known = [area for area in areas if area.value is not None]
        return min(known, key=lambda area: area.value or 0.0, default=UNDEFINED)

    def paired(self, new: Labelled, old: Labelled) -> Difference | None:
        """Compare balanced accuracy; None if no two classes have at least two rows each."""
        target, one, other = new.target, self._right(new), self._right(old)
        classes = [code for code in self.outcomes if (target == code).sum() > 1]
        if len(classes) < 2:
            return None
        of_class = [(one[target == code], other[target == code]) for code in classes]
        variances = [(a - b).var(ddof=1) / len(a) for a, b in of_class]
        means = [(a.mean(), b.mean()) for a, b in of_class]
        return _difference(means, variances)

    def unpaired(self, new: Labelled, old: Labelled) -> Difference | None:
        """Compare balanced accuracy over the classes that have enough labels in both versions.

        None if there are fewer than two classes with :data:`MINIMUM_OF_EACH` labels.
        """
        means, variances = [], []
        for code in self.outcomes:
            one, other = (self._right(rows)[rows.target == code] for rows in (new, old))
            if min(len(one), len(other)) < MINIMUM_OF_EACH:
                continue
            means.append((one.mean(), other.mean()))
            # A share of 0 or 1 has no variance, which a sample cannot prove.
            variances.append(sum(x.var(ddof=1) / len(x) + 0.25 / len(x) ** 2 for x in (one, other)))
        return _difference(means, variances) if len(means) > 1 else None

    def _decide(self, scores: Columns) -> NDArray[np.intp]:
        stacked = np.stack([scores[name] for name in self.scores], axis=1)
        return np.asarray(np.argmax(stacked, axis=1))

    def _right(self, rows: Labelled) -> Numbers:
        return np.asarray(self._decide(rows.scores) == rows.target, dtype=np.float64)

    def _of_truth(self, rows: Labelled) -> Numbers:
        """Return the score of the true class of each row."""
        scores = np.stack([rows.scores[name] for name in self.scores], axis=1)
        return np.asarray(scores[np.arange(len(scores)), rows.target.astype(np.intp)])


def _difference(means: list[tuple[float, float]], variances: list[float]) -> Difference:
    """Average over the classes: means (new, old) and the variances of their differences."""
    new, old = np.mean(means, axis=0)
    return Difference(
        float(new), float(old), float(new - old), float(sum(variances)) / len(variances) ** 2
    )
