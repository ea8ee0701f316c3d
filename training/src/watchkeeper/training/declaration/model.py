"""The declaration of a model, and what may not contradict itself in it."""

from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from watchkeeper.core import head as manifest_head
from watchkeeper.core.answer import AnswerPolicy, outputs_of
from watchkeeper.core.names import check_model_name
from watchkeeper.core.policies import DriftPolicy, RolloutPolicy
from watchkeeper.core.signature import Column, Signature, missing_name
from watchkeeper.core.tasks import task_of
from watchkeeper.core.tasks.base import Better, Task
from watchkeeper.core.truths import MAX_NAME_LENGTH, Truth, truths_of
from watchkeeper.training.declaration.errors import DeclarationError, listed
from watchkeeper.training.declaration.fit import Balance, Outliers, Parameters
from watchkeeper.training.declaration.gate import Gate
from watchkeeper.training.declaration.head import Head
from watchkeeper.training.declaration.rows import Source, Split
from watchkeeper.training.declaration.search import Search, contradictions


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
        if problems := _contradictions(self):
            raise DeclarationError(f"model {self.name!r}: {'; '.join(problems)}")

    @property
    def main_head(self) -> Head:
        """The first head with a label, or else the first head.

        The search chooses parameters for it.
        """
        return next((head for head in self.heads if head.supervised), self.heads[0])

    @property
    def target(self) -> str:
        """The source's column that holds the truth of the main head; "" if nothing can be true."""
        return self.main_head.label

    @property
    def task(self) -> Task:
        """The task of the main head."""
        return task_of(self._described_main_head())

    @property
    def truths(self) -> tuple[Truth, ...]:
        """The truths of the heads with a label, that of the main head first; may be empty."""
        return truths_of(self.described(), self._described_main_head())

    def _described_main_head(self) -> manifest_head.Head:
        return self.main_head.describe(self.threshold(self.main_head))

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


def _contradictions(model: Model) -> list[str]:
    """Return what does not fit together in a declaration, a phrase for each."""
    return [*_label_problems(model)] or [
        *_estimator_problems(model),
        *_metric_problems(model),
        *_name_problems(model),
        *contradictions(model.search, model.parameters),
    ]


def _label_problems(model: Model) -> Iterator[str]:
    if not model.heads:
        yield "heads has none, and a model needs one"
    labels = [head.label for head in model.heads if head.supervised]
    if twice := [name for name, count in Counter(labels).items() if count > 1]:
        yield f"{listed(twice)}: each label can be the truth of one head only"
    for head in model.heads:
        if head.label in model.names:
            yield f"head {head.score!r}: its label {head.label!r} is also a request column"
        if len(head.label) > MAX_NAME_LENGTH:
            yield (
                f"head {head.score!r}: its label {head.label!r} has more than {MAX_NAME_LENGTH} "
                "characters; name it shorter in the source's query"
            )


def _estimator_problems(model: Model) -> Iterator[str]:
    for head in model.heads:
        is_given = head.train is not None or head.adopt is not None
        if [head.features is None, head.estimator is None] != [is_given] * 2:
            yield f"head {head.score!r} needs features and estimator, or else train, or else adopt"
        if not is_given or not head.supervised:
            continue
        rules = {"outliers": model.outliers, "balance": model.balance}
        for name in (name for name, rule in rules.items() if rule is not None):
            yield f"{name} prepares rows for a declared estimator, and {head.score!r} has none"
        if head.adopt is not None and model.search.space:
            yield f"search tries parameters, and the adopted estimator of {head.score!r} has none"


def _metric_problems(model: Model) -> Iterator[str]:
    limits: tuple[tuple[str, dict[str, float], Better], ...] = (
        ("floors", model.gate.floors, "higher"),
        ("ceilings", model.gate.ceilings, "lower"),
    )
    for kind, named, better in limits:
        known = [
            model.metric_name(truth, name)
            for truth in model.truths
            for name, way in truth.task.metrics.items()
            if way == better
        ]
        if unknown := _unknown(named, known):
            yield (
                f"gate.{kind} name {unknown}; metrics of which {better} is better are "
                f"{listed(known) or 'none'}"
            )
    if model.balance is not None and all(len(x.task.outcomes) != 2 for x in model.truths):
        found = listed(truth.name for truth in model.truths) or "none"
        yield f"balance needs a label with two outcomes; labels are {found}"
    if model.search.space and not model.truths:
        yield "search compares parameters by a truth, and no head has a label"
    if model.balance is not None and (
        nullable := listed(column.name for column in model.columns if column.nullable)
    ):
        yield (
            f"balance makes rows between neighbours, which need all values, and {nullable} may be "
            "missing; use class weights of the estimator instead"
        )


def _name_problems(model: Model) -> Iterator[str]:
    scores, risk = model.scores, model.answer.risk
    labels = [label.name for label in model.answer.labels]
    supervised = [truth.task.head.score for truth in model.truths]
    used = [
        ("answer.risk.score", [risk.score] if risk else [], scores, "scores"),
        ("answer.hidden", model.answer.hidden, scores, "scores"),
        *((f"label {x.name!r}", [x.score], scores, "scores") for x in model.answer.labels),
        ("gate.allowed", model.gate.allowed, model.names, "columns"),
        ("gate.margin", _margins(model.gate), supervised, "scores of heads with a label"),
        ("gate.max_label_rate", model.gate.max_label_rate, labels, "labels"),
    ]
    for where, names, known, what in used:
        if unknown := _unknown(names, known):
            yield f"{where} names {unknown}; {what} are {listed(known) or 'none'}"
    of_tasks = (output.name for head in model.described() for output in task_of(head).outputs)
    watched = (missing_name(column.name) for column in model.columns if column.nullable)
    names = [*model.names, *watched, *scores, *of_tasks, *labels, *([risk.name] if risk else [])]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        yield f"{listed(twice)}: columns, scores and outputs must have different names"


def _margins(gate: Gate) -> Iterable[str]:
    return gate.margin if isinstance(gate.margin, dict) else ()


def _unknown(names: Iterable[str], known: Iterable[str]) -> str:
    return listed(name for name in names if name not in set(known))
