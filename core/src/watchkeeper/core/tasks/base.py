"""What every task defines. A task is bound to one head."""

from collections.abc import Mapping
from typing import Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.core.estimates import Estimate, Numbers
from watchkeeper.core.head import Head, Method
from watchkeeper.core.signature import Columns, Output

Better = Literal["higher", "lower"]


class InvalidLabelError(ValueError):
    """A label has a value that the task does not have; the message says which values it has."""


class Labelled(msgspec.Struct, frozen=True):
    """Rows whose truth is known.

    Attributes:
        target: the labels, as :meth:`Task.code` returns them, of shape (rows,).
        scores: the scores by name, each of shape (rows,).
    """

    target: Numbers
    scores: Columns

    def __len__(self) -> int:
        return len(self.target)


class Difference(msgspec.Struct, frozen=True):
    """The quality of two versions, and by how much the new one is better.

    Attributes:
        new: the quality of the new version.
        old: the quality of the other version.
        value: by how much the new one is better; negative if it is worse.
        variance: the variance of ``value`` as an estimate; infinite if it cannot be known.
    """

    new: float
    old: float
    value: float
    variance: float


class Task(Protocol):
    """What the values of a head mean, what its labels are, and how both are compared.

    Attributes:
        head: the head.
        methods: the methods of an estimator that can give the values; the first is the default.
        scores: the names of the scores, in order.
        outputs: the outputs that follow from the scores alone, without a policy.
        threshold: the score from which on a row counts as positive; None if there is none.
        has_labels: whether anything turns out to be true of a row.
        outcomes: the values that a label can have; empty if every finite number is one.
        labels_are_text: whether :meth:`code` takes the name of an outcome, not a number.
        rule: the values that a label can have, in words: "a label must be 0 or 1".
        metrics: what :meth:`measure` returns by name, and whether higher or lower is better.
        quality: the name of the metric that versions are compared by.
        margin: how much worse a new version may be on the same rows, if nothing else is declared.
        search_metric: the name of the metric that :meth:`search_value` returns; higher is better.
        loss: what :meth:`losses` returns, in words, such as "Brier score"; empty without labels.
        rare: what :meth:`count_rare` counts, for messages, such as "positive"; empty if there is
            nothing to count.
    """

    head: Head
    methods: tuple[Method, ...]
    scores: tuple[str, ...]
    outputs: tuple[Output, ...]
    threshold: float | None
    has_labels: bool
    outcomes: tuple[float, ...]
    labels_are_text: bool
    rule: str
    metrics: Mapping[str, Better]
    quality: str
    margin: float
    search_metric: str
    loss: str
    rare: str

    def columns(self, values: NDArray[np.float64]) -> Columns:
        """Return the scores by name, from the values of the head, (rows,) or (rows, classes)."""

    def answer(self, scores: Columns) -> Columns:
        """Return the values of :attr:`outputs` by name, each of shape (rows,)."""

    def code(self, label: object) -> float:
        """Return a label as the number by which it is stored and compared.

        Raises:
            InvalidLabelError: the task has no such label.
        """

    def name(self, code: float) -> str:
        """Return a label for people, from its number."""

    def count_rare(self, counts: Mapping[float, int]) -> int:
        """Return how many labels are of the rare kind that a fit needs; ``counts`` is by label.

        A task without such a kind returns the number of all labels.
        """

    def counts(self, target: Numbers) -> dict[str, int]:
        """Count labels (rows,) for a report, by what is counted, such as "positives"."""

    def calibrated(self, rows: Labelled) -> Head:
        """Return the head with what only rows tell that it was not fitted on.

        Raises:
            ValueError: the rows are too few; the message says what needs more of them.
        """

    def measure(self, rows: Labelled, seed: int) -> dict[str, Estimate]:
        """Measure the scores by all :attr:`metrics`; ``seed`` starts the bootstrap."""

    def loss_scale(self, rows: Labelled) -> float:
        """Return the scale of :meth:`losses`, from rows that the version was not fitted on.

        A version keeps it, so that its losses can be compared for as long as it serves. It is 1 if
        the losses have no unit.
        """

    def losses(self, rows: Labelled, scale: float) -> Numbers:
        """Return how wrong the scores are in each row, of shape (rows,), from 0 to 1.

        A value that is not a number is as wrong as possible. Without labels the array is empty.
        """

    def search_value(self, rows: Labelled) -> float:
        """Return what a search for parameters maximises."""

    def separation(self, target: Numbers, values: Numbers) -> Estimate:
        """Measure how well one column (rows,) alone tells the truth.

        Returns:
            A value up to 1. It is 1 for a copy of the truth and for a monotone function of it.
        """

    def paired(self, new: Labelled, old: Labelled) -> Difference | None:
        """Compare two versions on the same rows; None if the rows cannot tell them apart."""

    def unpaired(self, new: Labelled, old: Labelled) -> Difference | None:
        """Compare two versions on rows of their own; None if there are too few labels."""
