"""The concept watch of one head: judges the blocks of labelled rows of a version in their order.

Each judged block is stored in the ledger, and the status follows from the stored blocks alone. So a
process that is killed at any line, or one that takes over, decides the same. A turn judges some
blocks at most.
"""

import logging
import math
from typing import Final

import msgspec

from watchkeeper.core.gate_report import HeldOutLoss
from watchkeeper.core.policies import DriftPolicy
from watchkeeper.core.truths import Truth
from watchkeeper.drift.concept.baseline import limit_of
from watchkeeper.drift.concept.completeness import block_loss, next_step
from watchkeeper.drift.concept.status import ConceptStatus, status_of
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.concept_blocks import (
    ConceptBlock,
    blocks,
    newest_block,
    next_block,
    save_block,
)
from watchkeeper.ledger.counts import count_labelled_rows
from watchkeeper.ledger.observations import labelled_rows, scored_labels
from watchkeeper.ledger.reports import broken_columns

BLOCKS_A_TURN: Final = 20

log = logging.getLogger(__name__)


class ConceptWatch:
    """The concept watch of one head. ``status`` is what the stored blocks show."""

    def __init__(
        self,
        ledger: Ledger,
        model: str,
        version: int,
        truth: Truth,
        *,
        baseline: HeldOutLoss,
        policy: DriftPolicy,
        heads: int,
    ) -> None:
        """Create the watch.

        Args:
            ledger: the ledger.
            model: the model.
            version: its version in production.
            truth: the truth of the head.
            baseline: what the gate measured.
            policy: the policy in force.
            heads: the number of heads that share ``concept_alarm_rows``.
        """
        self._ledger = ledger
        self._model = model
        self._version = version
        self._truth = truth
        self._baseline = baseline
        self._policy = policy
        self._rows = max(policy.concept_block, baseline.block_rows)
        self._run_length = heads * policy.concept_alarm_rows / self._rows
        self._blocks: list[ConceptBlock] = []  # as stored: saves a long query each turn
        self.status = self._status_of([])

    def run_once(self, now: float, examined: float, until: float) -> bool:
        """Judge the next blocks, as long as their labels are complete.

        Args:
            now: the record time of the newest request, seconds since 1970.
            examined: the end of the newest window that was examined. A block waits for the windows
                that contain its rows, because they say whether a sensor is broken.
            until: the latest record time that is not in the future. A clock that was ahead may have
                left blocks after it, which do not count before their time comes.

        Returns:
            True if a block was judged or skipped. Then the next one may be complete, too.

        Raises:
            LedgerError: the ledger does not answer; nothing is decided.
        """
        self._read_blocks(until)
        after = self._blocks[-1].until if self._blocks else -math.inf
        more = False
        for _ in range(BLOCKS_A_TURN):
            block = next_block(
                self._ledger,
                self._model,
                self._version,
                self._rows,
                after=after,
                until=min(now, examined, until),
            )
            judged = block and self._judge(block, now)
            if judged is None:
                break
            save_block(self._ledger, self._model, self._version, self._truth.name, judged)
            after, more = judged.until, True
        if more:
            self._read_blocks(until)
        return more

    def _read_blocks(self, until: float) -> None:
        """Read the blocks that the ledger has, if they are not those that are known."""
        key = self._ledger, self._model, self._version, self._truth.name
        newest = newest_block(*key, until=until)
        if newest == (self._blocks[-1] if self._blocks else None):
            return
        self._blocks = blocks(*key, until=until)
        before = self.status
        self.status = self._status_of(self._blocks)
        if self.status.state != before.state:
            log.info(
                "concept drift of %s: %s: %s",
                self._truth.name,
                self.status.state,
                self.status.reason,
            )

    def _status_of(self, stored: list[ConceptBlock]) -> ConceptStatus:
        return status_of(
            stored,
            label=self._truth.name,
            measure=self._truth.task.loss,
            baseline=self._baseline,
            limit=limit_of(self._baseline, self._policy),
            run_length=self._run_length,
        )

    def _judge(self, block: ConceptBlock, now: float) -> ConceptBlock | None:
        """Return a block with its loss, or as skipped; None while it waits for labels."""
        until = math.nextafter(block.until, math.inf)
        truth, version = self._truth, self._version
        age = now - block.until
        counted, _ = count_labelled_rows(
            self._ledger,
            self._model,
            since=block.since,
            until=until,
            version=version,
            truth=truth,
        )
        if next_step(block.rows, counted, age, self._policy) == "wait":
            return None
        rows = labelled_rows(
            self._ledger, self._model, since=block.since, until=until, version=version, truth=truth
        )
        scored = scored_labels(rows, truth.task)
        block = msgspec.structs.replace(block, labelled=len(scored))
        step = next_step(block.rows, block.labelled, age, self._policy)
        if step == "wait":  # two labels of one row were counted
            return None
        if step == "skip":
            why = f"{block.labelled} of {block.rows} rows were labelled in time"
            return msgspec.structs.replace(block, skipped=why)
        broken = broken_columns(
            self._ledger, self._model, version, since=block.since, until=block.until
        )
        if broken:
            why = f"broken sensors: {', '.join(broken)}"
            return msgspec.structs.replace(block, skipped=why)
        losses = truth.task.losses(scored, self._baseline.scale)
        return msgspec.structs.replace(block, loss=block_loss(losses, block.rows))
