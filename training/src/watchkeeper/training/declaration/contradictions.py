"""What contradicts itself in a declaration."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec

from watchkeeper.core.policies import override
from watchkeeper.core.signature import missing_name
from watchkeeper.core.tasks import task_of
from watchkeeper.core.tasks.base import Better
from watchkeeper.core.truths import MAX_NAME_LENGTH
from watchkeeper.training.declaration.errors import listed
from watchkeeper.training.declaration.gate import Gate

if TYPE_CHECKING:  # the model calls this module
    from watchkeeper.training.declaration.model import Model


def contradictions(model: "Model") -> list[str]:
    """Return what does not fit together in a declaration, a phrase for each."""
    return [*_label_problems(model)] or [
        *_estimator_problems(model),
        *_metric_problems(model),
        *_name_problems(model),
        *_parameter_problems(model),
    ]


def _label_problems(model: "Model") -> Iterator[str]:
    labels = [head.label for head in model.heads if head.supervised]
    if not labels:
        yield (
            "one head at least must have a label, the column with its truth, and none has one; "
            f"heads are {listed(head.score for head in model.heads) or 'none'}"
        )
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


def _estimator_problems(model: "Model") -> Iterator[str]:
    for head in model.heads:
        is_given = head.train is not None or head.adopt is not None
        if [head.features is None, head.estimator is None] != [is_given] * 2:
            yield f"head {head.score!r} needs features and estimator, or else train, or else adopt"
        if not is_given or not head.supervised:
            continue
        rules = {"outliers": model.outliers, "balance": model.balance}
        for name in (name for name, rule in rules.items() if rule is not None):
            yield f"{name} prepares rows for a declared estimator, and {head.score!r} has none"
        if head.adopt is not None and model.search.candidates:
            yield f"search tries parameters, and the adopted estimator of {head.score!r} has none"


def _metric_problems(model: "Model") -> Iterator[str]:
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
        found = listed(truth.name for truth in model.truths)
        yield f"balance needs a label with two outcomes, and {found} have others"
    if model.balance is not None and (
        nullable := listed(column.name for column in model.columns if column.nullable)
    ):
        yield (
            f"balance makes rows between neighbours, which need all values, and {nullable} may be "
            "missing; use class weights of the estimator instead"
        )


def _name_problems(model: "Model") -> Iterator[str]:
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


def _parameter_problems(model: "Model") -> Iterator[str]:
    for changes in (*model.search.candidates, model.search.cheaper):
        known = [field.name for field in msgspec.structs.fields(model.parameters)]
        if unknown := _unknown(changes, known):
            yield f"search names {unknown}; parameters are {listed(known)}"
            continue
        try:
            override(model.parameters(), changes)
        except msgspec.ValidationError as error:
            yield f"search: {changes}: {error}"


def _unknown(names: Iterable[str], known: Iterable[str]) -> str:
    return listed(name for name in names if name not in set(known))
