"""From a version's scores to its answer: labels and the risk level.

Serving answers with it, training makes the example's answer with it, and whoever checks an
answer offline uses the same few lines.
"""

from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.contracts.signature import Output

Columns = dict[str, NDArray[Any]]
RISK_LEVELS = ("LOW", "MEDIUM", "HIGH")
_LEVELS = np.array(RISK_LEVELS, dtype=object)


class Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An INT64 output that is 1 where ``score`` is at least ``threshold``.

    With ``side`` "below" it is 1 where the score is less than that: some scores fall with what
    they are to find, like the decision function of an isolation forest.
    """

    name: str
    score: str
    threshold: float = 0.5
    side: Literal["above", "below"] = "above"


class Risk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A BYTES output: LOW below ``medium``, HIGH from ``high`` on, MEDIUM between."""

    score: str
    medium: float
    high: float
    name: str = "risk_level"

    def __post_init__(self) -> None:
        if not self.medium < self.high:
            raise ValueError(
                f"risk policy: medium ({self.medium}) must be below high ({self.high})"
            )


class AnswerPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How scores become an answer; kept with the version, overridable where it is served.

    ``out_of_range`` says what becomes of a value outside its declared range or categories:
    the request is refused, or answered and flagged. ``hidden`` scores are no outputs, only the
    base of some; they are recorded, watched and compared like all others.
    """

    labels: tuple[Label, ...]
    risk: Risk
    out_of_range: str = "refuse"
    hidden: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.out_of_range not in ("refuse", "flag"):
            raise ValueError(f"out_of_range {self.out_of_range!r}: must be 'refuse' or 'flag'")


def outputs_of(scores: tuple[str, ...], policy: AnswerPolicy) -> tuple[Output, ...]:
    """Describe the outputs that a client gets of what :func:`answer` makes, in order."""
    return (
        *(Output(name, "FP64") for name in scores if name not in policy.hidden),
        *(Output(label.name, "INT64") for label in policy.labels),
        Output(policy.risk.name, "BYTES", RISK_LEVELS),
    )


def answer(scores: Columns, policy: AnswerPolicy) -> Columns:
    """Turn scores, each of shape (rows,), into all outputs and hidden scores, likewise."""
    outputs: Columns = dict(scores)
    for label in policy.labels:
        above = scores[label.score] >= label.threshold
        outputs[label.name] = (above == (label.side == "above")).astype(np.int64)
    risk = policy.risk
    scored = scores[risk.score]
    outputs[risk.name] = _LEVELS[(scored >= risk.medium).astype(np.intp) + (scored >= risk.high)]
    return outputs
