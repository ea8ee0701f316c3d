"""What a version must reach to become the candidate."""

import msgspec

from watchkeeper.core.tasks.base import Task
from watchkeeper.training.declaration.errors import DeclarationError


class Gate(msgspec.Struct, frozen=True):
    """What a version must reach on held-out rows to become the candidate.

    The gate judges the heads that have a ``label``. ``floors`` are minimum values by metric, for
    metrics of which higher is better; ``ceilings`` are maximum values, for the others. The task of
    a head has the metrics, see :mod:`watchkeeper.core.tasks`. A metric of the main head has its
    plain name, such as "roc_auc"; one of another head begins with the score: "life.mae".
    ``max_label_rate`` is the largest
    share of rows, from 0 to 1, that an output label may mark. All of them hold on the held-out
    history. If no head has a label, ``max_label_rate`` holds on recent rows, too: nothing else says
    whether a version fits what happens now.

    ``allowed`` names columns that may separate the outcomes alone. Without it a version with such
    a column is rejected, see :mod:`watchkeeper.training.leakage`.

    ``margin`` is the largest loss of quality against production that the lower confidence bound
    may show: of ROC AUC (binary) or balanced accuracy (multi-class), or the relative growth of the
    mean absolute error (regression). The usual margin of a task is 0.03, 0.03 and 0.2. One number
    is for the main head; write ``{"life": 0.3}`` for other heads, by their scores.
    Recent rows are compared when there are at least ``minimum_recent`` of them, with
    ``minimum_recent_positives`` positives (binary) or rows outside the most frequent class
    (multi-class).
    """

    floors: dict[str, float] = {}
    ceilings: dict[str, float] = {}
    max_label_rate: dict[str, float] = {}
    allowed: tuple[str, ...] = ()
    margin: float | dict[str, float] = {}
    minimum_recent: int = 100
    minimum_recent_positives: int = 10

    def __post_init__(self) -> None:
        for name, limit in self.ceilings.items():
            if not 0.0 <= limit < float("inf"):
                raise DeclarationError(
                    f"gate: the ceiling of {name!r} is {limit:g}; it must be a number from 0 on"
                )
        for kind, limits in (("floor", self.floors), ("max_label_rate", self.max_label_rate)):
            for name, limit in limits.items():
                if not 0.0 <= limit <= 1.0:
                    raise DeclarationError(
                        f"gate: the {kind} of {name!r} is {limit:g}; it must be from 0 to 1"
                    )
        for margin in self.margin.values() if isinstance(self.margin, dict) else [self.margin]:
            if not margin >= 0.0:
                raise DeclarationError(f"gate: margin is {margin:g}; it must not be negative")

    def margin_of(self, task: Task, *, is_main: bool) -> float:
        """Return the margin of a head: the declared one, or else the usual one of its task."""
        if isinstance(self.margin, dict):
            return self.margin.get(task.head.score, task.margin)
        return self.margin if is_main else task.margin
