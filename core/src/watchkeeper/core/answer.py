"""The answer of a version: what its tasks and its policy make of its scores.

A task gives outputs that follow from the scores alone, such as the class with the largest score,
see :mod:`watchkeeper.core.tasks`. The policy gives labels and a risk level by thresholds.

Serving computes answers, training computes the answer of the example, and offline checks compute
expected answers, all with the function :func:`answer`.
"""

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from watchkeeper.core.head import Head
from watchkeeper.core.signature import Columns, Output
from watchkeeper.core.tasks import task_of

RISK_LEVELS = ("LOW", "MEDIUM", "HIGH")
_LEVELS = np.array(RISK_LEVELS, dtype=object)


class Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A label: an INT64 output that is 1 or 0, by the threshold of a score."""

    name: Annotated[str, Meta(description="Name of the output.")]
    score: Annotated[str, Meta(description="Name of the score.")]
    threshold: Annotated[float, Meta(description="Threshold of the score.")] = 0.5
    side: Annotated[
        Literal["above", "below"],
        Meta(
            description="Whether the label is 1 from the threshold on, or below it. Some scores are"
            " low for what they detect, like the decision function of an isolation forest."
        ),
    ] = "above"


class Risk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The risk level: a BYTES output that is LOW, MEDIUM or HIGH, by two thresholds of a score."""

    score: Annotated[str, Meta(description="Name of the score.")]
    medium: Annotated[float, Meta(description="Scores below this are LOW.")]
    high: Annotated[float, Meta(description="Scores from this on are HIGH; above `medium`.")]
    name: Annotated[str, Meta(description="Name of the output.")] = "risk_level"

    def __post_init__(self) -> None:
        if not self.medium < self.high:
            raise ValueError(
                f"risk policy: medium ({self.medium}) must be below high ({self.high})"
            )


class AnswerPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How scores become an answer. It is part of a version; a server's setting replaces values."""

    labels: Annotated[tuple[Label, ...], Meta(description="The labels.")] = ()
    risk: Annotated[Risk | None, Meta(description="The risk level; none by default.")] = None
    out_of_range: Annotated[
        Literal["refuse", "flag"],
        Meta(
            description="What happens to a value outside its declared range or categories: the "
            "request is refused, or it is answered and the value is flagged."
        ),
    ] = "refuse"
    hidden: Annotated[
        tuple[str, ...],
        Meta(
            description="Scores that are not outputs. They are recorded, watched and compared like "
            "all others."
        ),
    ] = ()


def outputs_of(heads: Iterable[Head], policy: AnswerPolicy) -> tuple[Output, ...]:
    """Return the outputs that a client receives, in order: scores, outputs of tasks, labels, risk.

    Args:
        heads: The heads of the version.
        policy: The policy of the answer.
    """
    tasks = [task_of(head) for head in heads]
    scores = (name for task in tasks for name in task.scores if name not in policy.hidden)
    return (
        *(Output(name, "FP64") for name in scores),
        *(output for task in tasks for output in task.outputs),
        *(Output(label.name, "INT64") for label in policy.labels),
        *([Output(policy.risk.name, "BYTES", RISK_LEVELS)] if policy.risk else []),
    )


def answer(scores: Columns, heads: Iterable[Head], policy: AnswerPolicy) -> Columns:
    """Compute the outputs of tasks, labels and the risk level.

    Args:
        scores: All scores by name, each of shape (rows,).
        heads: The heads of the version.
        policy: The policy of the answer.

    Returns:
        Scores (also hidden ones) and all other outputs by name, each of shape (rows,).

    Example:
        >>> policy = AnswerPolicy((Label("failure", "p"),), Risk("p", medium=0.2, high=0.6))
        >>> head = Head("p", "p.skops", "predict_proba")
        >>> answer({"p": np.array([0.1, 0.7])}, [head], policy)["risk_level"].tolist()
        ['LOW', 'HIGH']
    """
    outputs: Columns = dict(scores)
    for head in heads:
        outputs |= task_of(head).answer(scores)
    for label in policy.labels:
        above = scores[label.score] >= label.threshold
        outputs[label.name] = (above == (label.side == "above")).astype(np.int64)
    if risk := policy.risk:
        score = scores[risk.score]
        levels = (score >= risk.medium).astype(np.intp) + (score >= risk.high)
        outputs[risk.name] = _LEVELS[levels]
    return outputs
