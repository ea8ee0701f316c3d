"""The declaration of a model."""

import msgspec

from watchkeeper.core import head as manifest_head
from watchkeeper.core.answer import AnswerPolicy, outputs_of
from watchkeeper.core.names import check_model_name
from watchkeeper.core.policies import DriftPolicy, RolloutPolicy
from watchkeeper.core.signature import Column, Signature
from watchkeeper.core.tasks import task_of
from watchkeeper.core.tasks.base import Task
from watchkeeper.core.truths import Truth, truths_of
from watchkeeper.training.declaration.contradictions import contradictions
from watchkeeper.training.declaration.errors import DeclarationError
from watchkeeper.training.declaration.fit import Balance, Outliers, Parameters, Search
from watchkeeper.training.declaration.gate import Gate
from watchkeeper.training.declaration.head import Head
from watchkeeper.training.declaration.rows import Source, Split


class Model(msgspec.Struct, frozen=True):
    """The declaration of a model.

    ``recent_weight`` is the total weight of all labelled predictions of the present regime in the
    fit, relative to the whole history.

    Raises:
        DeclarationError: names in the declaration do not fit together.
        InvalidNameError: ``name`` cannot be the name of a model.
    """

    name: str
    source: Source
    columns: tuple[Column, ...]
    heads: tuple[Head, ...]
    gate: Gate
    answer: AnswerPolicy = AnswerPolicy()
    parameters: type[Parameters] = Parameters
    split: Split = Split()
    outliers: Outliers | None = None
    balance: Balance | None = None
    search: Search = Search()
    drift: DriftPolicy = DriftPolicy()
    rollout: RolloutPolicy = RolloutPolicy()
    recent_weight: float = 1.0

    def __post_init__(self) -> None:
        check_model_name(self.name)
        if problems := contradictions(self):
            raise DeclarationError(f"model {self.name!r}: {'; '.join(problems)}")

    @property
    def main_head(self) -> Head:
        """The first head with a label. The search chooses parameters for it."""
        return next(head for head in self.heads if head.supervised)

    @property
    def target(self) -> str:
        """The source's column that holds the truth of the main head."""
        return self.main_head.label

    @property
    def task(self) -> Task:
        """The task of the main head."""
        return self.truths[0].task

    @property
    def truths(self) -> tuple[Truth, ...]:
        """The truths of the heads with a label, that of the main head first."""
        return truths_of(self.described(), self.main_head.describe(self.threshold(self.main_head)))

    def described(self) -> tuple[manifest_head.Head, ...]:
        """Return the heads as a manifest describes them before they are fitted."""
        return tuple(head.describe(self.threshold(head)) for head in self.heads)

    @property
    def scores(self) -> tuple[str, ...]:
        """The names of all scores, in order."""
        return tuple(name for head in self.described() for name in task_of(head).scores)

    @property
    def signature(self) -> Signature:
        """The columns of requests and answers."""
        return Signature(self.columns, outputs_of(self.described(), self.answer))

    @property
    def names(self) -> list[str]:
        """The names of the request columns, in order."""
        return [column.name for column in self.columns]

    @property
    def categories(self) -> list[str]:
        """The names of the request columns that hold categories."""
        return [column.name for column in self.columns if column.datatype == "BYTES"]

    def metric_name(self, truth: Truth, metric: str) -> str:
        """Return the name of a metric of a head: plain for the main head, else with its score."""
        score = truth.task.head.score
        return metric if score == self.main_head.score else f"{score}.{metric}"

    def threshold(self, head: Head) -> float:
        """Return the score from which on the gate's metrics count a row as positive.

        The threshold of the score's own output label, or else of HIGH risk, or else 0.5.
        """
        score, risk = head.score, self.answer.risk
        rising = (x for x in self.answer.labels if x.score == score and x.side == "above")
        thresholds = [x.threshold for x in rising]
        thresholds += [risk.high] if risk and risk.score == score else []
        return thresholds[0] if thresholds else 0.5
