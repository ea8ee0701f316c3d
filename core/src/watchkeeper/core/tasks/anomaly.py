"""Anomaly: how usual a row is. Nothing says what is true, so the head has no label.

The score is watched and compared with the offline prediction like any other. ``max_label_rate`` of
the gate bounds how many rows a label may mark. All heads of a model may be of this task.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from watchkeeper.core.estimates import UNDEFINED, Estimate, Numbers
from watchkeeper.core.head import Head, Method
from watchkeeper.core.signature import Columns, Output
from watchkeeper.core.tasks.base import Better, Difference, InvalidLabelError, Labelled


class Anomaly:
    """The task of a head without labels, see :class:`~watchkeeper.core.tasks.base.Task`."""

    methods: tuple[Method, ...] = (
        "decision_function",
        "score_samples",
        "predict",
        "predict_proba",
    )
    outputs: tuple[Output, ...] = ()
    has_labels = False
    outcomes: tuple[float, ...] = ()
    threshold: float | None = None
    labels_are_text = False
    rule = "this score has no labels"
    metrics: Mapping[str, Better] = {}
    quality = ""
    margin = 0.0
    search_metric = ""
    loss = ""
    rare = ""

    def __init__(self, head: Head) -> None:
        if head.label:
            raise ValueError(f"the task anomaly has no label, and it names {head.label!r}")
        self.head = head
        self.scores: tuple[str, ...] = (head.score,)

    def columns(self, values: NDArray[np.float64]) -> Columns:
        """Return the one score; of two probabilities the second."""
        return {self.head.score: values[:, 1] if values.ndim == 2 else values}

    def answer(self, scores: Columns) -> Columns:  # noqa: ARG002 - labels come from the policy
        """Return nothing: the answer policy makes labels from the score."""
        return {}

    def code(self, label: object) -> float:  # noqa: ARG002
        """Refuse every label."""
        raise InvalidLabelError(self.rule)

    def name(self, code: float) -> str:
        """Return the number as text."""
        return f"{code:g}"

    def count_rare(self, counts: Mapping[float, int]) -> int:
        """Return the number of all labels."""
        return sum(counts.values())

    def counts(self, target: Numbers) -> dict[str, int]:  # noqa: ARG002
        """Count nothing."""
        return {}

    def calibrated(self, rows: Labelled) -> Head:  # noqa: ARG002 - nothing to calibrate
        """Return the head as it is."""
        return self.head

    def measure(self, rows: Labelled, seed: int) -> dict[str, Estimate]:  # noqa: ARG002
        """Return nothing: there is no truth."""
        return {}

    def loss_scale(self, rows: Labelled) -> float:  # noqa: ARG002
        """Return 1: there is no truth."""
        return 1.0

    def losses(self, rows: Labelled, scale: float) -> Numbers:  # noqa: ARG002
        """Return no losses: there is no truth."""
        return np.empty(0)

    def search_value(self, rows: Labelled) -> float:  # noqa: ARG002
        """Return 0: there is no truth to search by."""
        return 0.0

    def separation(self, target: Numbers, values: Numbers) -> Estimate:  # noqa: ARG002
        """Return no estimate: there is no truth."""
        return UNDEFINED

    def paired(self, new: Labelled, old: Labelled) -> Difference | None:  # noqa: ARG002
        """Return None: there is no truth."""
        return None

    def unpaired(self, new: Labelled, old: Labelled) -> Difference | None:  # noqa: ARG002
        """Return None: there is no truth."""
        return None
