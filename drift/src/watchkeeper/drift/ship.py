"""Shipping: the spool's records into the ledger, in order, each exactly once.

A batch is stored together with the spool's state in one transaction, then the checkpoint moves,
then the segments below it go. Killed between any two of these, the next process ships the
last batch again, which the ledger recognises, and counts what is in it from the checkpoint on.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError

from watchkeeper.contracts.record import Gap, LabelRecord, Prediction
from watchkeeper.contracts.spool import (
    CHECKPOINT,
    Checkpoint,
    identity,
    replace_file,
    segment_path,
    segments,
)
from watchkeeper.drift.tail import Batch, Placed, read_batch, read_checkpoint
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.gaps import StoredGap
from watchkeeper.ledger.store import SpoolState, ship

IN_FLIGHT_SECONDS = 1.0
IDLE_SECONDS = 1.0  # an idle spool's state is written so often: the rollout waits for it

log = logging.getLogger(__name__)


class Shipper:
    """Ships one spool; the only writer of its checkpoint."""

    def __init__(
        self,
        folder: Path,
        ledger: Ledger,
        model: str,
        version: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.checkpoint: Checkpoint = read_checkpoint(folder)
        self.shipped = 0
        self.pending = 0
        self._ledger = ledger
        self._clock = clock
        self._state = SpoolState(identity(folder), model, version, shipped_until=0.0)
        self._slowest: deque[float] = deque([0.0], maxlen=100)
        self._written = float("-inf")

    @property
    def shipped_until(self) -> float:
        """Every record older than this is in the ledger; 0 until that is known."""
        return self._state.shipped_until

    def turn(self) -> bool:
        """Ship one batch; True when there is more to ship at once.

        Raises:
            SQLAlchemyError: the ledger did not take it; nothing has moved, call again later.
        """
        now = self._clock()  # before reading: what was written by now is in what we read
        batch = read_batch(self.folder, self.checkpoint)
        idle = batch.after == self.checkpoint
        if idle and 0 <= now - self._written < IDLE_SECONDS:
            return False
        self._slowest.append(max((p.latency for p in batch.predictions), default=0.0))
        state = msgspec.structs.replace(
            self._state,
            lost=batch.after.lost,
            closed=False,
            shipped_until=self._reached(batch, now),
            seen=now,
        )
        after = self._store(batch, state)
        self._written = now
        self.pending = batch.pending
        if not idle:
            self._move(after)
        return not batch.at_end

    def close(self) -> None:
        """Mark the spool as shipped to its end; its server has gone."""
        closed = msgspec.structs.replace(self._state, closed=True, seen=self._clock())
        self._ship([], [], [], closed)
        if self.pending:
            log.warning("the spool ends in %d bytes of a record never finished", self.pending)

    def _reached(self, batch: Batch, now: float) -> float:
        """Return the time up to which everything will be in the ledger with this batch.

        While there is more to read it stays where it was; but a clock that went back makes
        records that are older than what was said, and then less must be said.
        """
        reach = now - self._in_flight()
        if batch.at_end and not batch.pending:
            return reach
        times = [p.time for p in batch.predictions]
        return min([self._state.shipped_until, reach, *times])

    def _in_flight(self) -> float:
        """Bound how long after its arrival, its time, a record may be written.

        A record is written when its answer is ready. What takes longer than twice the slowest
        of late comes into the ledger behind ``shipped_until``, and is not lost.
        """
        return max(IN_FLIGHT_SECONDS, 2 * max(self._slowest))

    def _store(self, batch: Batch, state: SpoolState) -> Checkpoint:
        """Store a batch; return the checkpoint after it, what the ledger never takes counted."""
        gaps = [self._gap(placed) for placed in batch.gaps]
        try:
            self._ship(batch.predictions, batch.labels, gaps, state)
        except (StatementError, OverflowError) as error:
            if not _is_about_a_record(error):
                raise
            log.warning("the ledger refuses a batch, its records go one by one: %s", error)
            parts: list[tuple[list[Prediction], list[LabelRecord], list[StoredGap]]] = [
                *(([p], [], []) for p in batch.predictions),
                *(([], [label], []) for label in batch.labels),
                *(([], [], [gap]) for gap in gaps),
            ]
            refused = sum(self._refuses(*part) for part in parts)
            after = msgspec.structs.replace(batch.after, lost=batch.after.lost + refused)
            self._ship([], [], [], msgspec.structs.replace(state, lost=after.lost))
            return after
        return batch.after

    def _refuses(
        self, predictions: list[Prediction], labels: list[LabelRecord], gaps: list[StoredGap]
    ) -> bool:
        try:
            self._ship(predictions, labels, gaps, self._state)
        except (StatementError, OverflowError) as error:
            if not _is_about_a_record(error):
                raise
            log.warning("the ledger refuses a record, it is lost: %s", error)
            return True
        return False

    def _ship(
        self,
        predictions: list[Prediction],
        labels: list[LabelRecord],
        gaps: list[StoredGap],
        state: SpoolState,
    ) -> None:
        ship(self._ledger, predictions, labels, state, gaps)
        self.shipped += len(predictions) + len(labels)
        self._state = state

    def _gap(self, placed: Placed) -> StoredGap:
        line = placed.line
        return StoredGap(
            spool=self._state.id,
            segment=placed.segment,
            position=placed.position,
            model=line.model,
            version=line.version,
            kind="lost" if isinstance(line, Gap) else "shed",
            protocol="" if isinstance(line, Gap) else line.protocol,
            count=line.lost if isinstance(line, Gap) else line.count,
            since=line.since,
            until=line.until,
        )

    def _move(self, checkpoint: Checkpoint) -> None:
        replace_file(self.folder / CHECKPOINT, msgspec.json.encode(checkpoint))
        self.checkpoint = checkpoint
        for number in segments(self.folder):
            if number < checkpoint.segment:
                segment_path(self.folder, number).unlink()


def _is_about_a_record(error: Exception) -> bool:
    """Tell a record that can never be stored from a ledger that cannot store now."""
    known = isinstance(error, DataError | IntegrityError | OverflowError)
    return known or not isinstance(error, DBAPIError)
