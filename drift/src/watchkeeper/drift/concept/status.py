"""What the concept watch knows about one head."""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
import numpy as np

from watchkeeper.core.estimates import UNDEFINED, Estimate, Numbers, normal
from watchkeeper.core.gate_report import HeldOutLoss
from watchkeeper.drift.concept.detector import detect
from watchkeeper.ledger.concept_blocks import ConceptBlock

SHOWN_BLOCKS: Final = 40  # the newest blocks, whose loss is shown while there is no drift

ConceptState = Literal["not available", "waiting for labels", "watching", "drifted"]


class ConceptStatus(msgspec.Struct, frozen=True):
    """The live loss of the head with the truth ``label``, and what it shows.

    ``measure`` says what the loss is. ``baseline`` is what the gate measured; None if it measured
    nothing, and ``reason`` says why. ``limit`` is the largest mean loss that is no drift.

    ``loss`` is the mean loss with its 95 % interval, since the drift began or over the newest
    blocks. ``rows`` counts the rows of these blocks, also of those that were skipped, ``labelled``
    those with a label. ``since`` and ``until`` are the record times of the first and last of them,
    seconds since 1970. ``judged`` and ``skipped`` count all blocks that were read. ``evidence`` is
    from 0 to 1, where the alarm is raised. ``found`` is the record time of the last row before the
    alarm; 0 without a drift.
    """

    label: str
    measure: str
    state: ConceptState
    reason: str
    baseline: HeldOutLoss | None = None
    limit: float | None = None
    loss: Estimate = UNDEFINED
    rows: int = 0
    labelled: int = 0
    since: float = 0.0
    until: float = 0.0
    judged: int = 0
    skipped: int = 0
    evidence: float = 0.0
    found: float = 0.0


def status_of(
    stored: Sequence[ConceptBlock],
    *,
    label: str,
    measure: str,
    baseline: HeldOutLoss,
    limit: float,
    run_length: float,
) -> ConceptStatus:
    """Return the status of a head from its blocks, oldest first.

    Args:
        stored: the blocks.
        label: the name of the truth.
        measure: what the loss is.
        baseline: what the gate measured.
        limit: the largest mean loss that is no drift.
        run_length: the mean number of blocks without drift until an alarm, at least.
    """
    judged = [place for place, block in enumerate(stored) if block.loss is not None]
    losses = np.array([stored[place].loss for place in judged], dtype=np.float64)
    detection = detect(losses, limit, run_length)
    begin = judged[detection.first] if detection.drifted else max(0, len(stored) - SHOWN_BLOCKS)
    shown = stored[begin:]
    loss = _mean(np.array([x.loss for x in shown if x.loss is not None], dtype=np.float64))
    state: ConceptState = "watching"
    if detection.drifted:
        state = "drifted"
        reason = f"the mean loss is {loss.value:.3g}, at most {limit:.3g} is no drift"
    elif loss.value is None:
        state = "waiting for labels"
        last = shown[-1].skipped if shown else "no block of rows is labelled yet"
        reason = f"nothing to judge: {last}"
    else:
        reason = f"the mean loss is {loss.value:.3g}; a drift is one that stays above {limit:.3g}"
    return ConceptStatus(
        label=label,
        measure=measure,
        state=state,
        reason=reason,
        baseline=baseline,
        limit=limit,
        loss=loss,
        rows=sum(block.rows for block in shown),
        labelled=sum(block.labelled for block in shown),
        since=shown[0].since if shown else 0.0,
        until=shown[-1].until if shown else 0.0,
        judged=len(judged),
        skipped=len(stored) - len(judged),
        evidence=detection.evidence,
        found=stored[judged[detection.found]].until if detection.drifted else 0.0,
    )


def _mean(losses: Numbers) -> Estimate:
    """Return the mean of block losses (blocks,) with its interval; none for fewer than two."""
    if not len(losses):
        return UNDEFINED
    if len(losses) == 1:
        return Estimate(float(losses[0]))
    return normal(float(losses.mean()), float(losses.var(ddof=1)) / len(losses), 0.0, 1.0)
