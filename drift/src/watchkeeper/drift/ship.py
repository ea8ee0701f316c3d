"""Ship the records of a spool to the ledger, in their order.

For each batch the shipper does three things:

1. It stores the records and the state of the spool in one transaction.
2. It moves the checkpoint.
3. It deletes the segments below the checkpoint.

A process may be killed between any two of them. The next process then ships the last batch again.
The ledger recognises every record by its id, and losses are counted in the checkpoint, so the
result is exact.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from watchkeeper.core.record import Gap, LabelRecord, Prediction
from watchkeeper.core.spool import (
    CHECKPOINT,
    Checkpoint,
    identity,
    replace_file,
    segment_path,
    segments,
)
from watchkeeper.core.version import BrokenVersionError, digest
from watchkeeper.drift.spool_reader import LocatedGap, SpoolBatch, read_batch, read_checkpoint
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.errors import LedgerError, refuses_values
from watchkeeper.ledger.gaps import StoredGap
from watchkeeper.ledger.records import store_records
from watchkeeper.ledger.spools import SpoolState

MINIMUM_REQUEST_SECONDS = 1.0
# How often the state of an idle spool is written: the rollout waits until it is shipped far enough.
IDLE_WRITE_SECONDS = 1.0

log = logging.getLogger(__name__)


class Shipper:
    """Ships one spool. It is the only writer of the checkpoint.

    ``shipped`` counts the records since the process started. ``pending`` is the number of bytes of
    an incomplete last line.
    """

    def __init__(
        self,
        folder: Path,
        ledger: Ledger,
        model: str,
        version: int,
        clock: Callable[[], float] = time.time,
        *,
        model_folder: Path | None = None,
    ) -> None:
        """Open a spool; create its folder if it does not exist.

        Args:
            folder: the spool.
            ledger: the ledger.
            model: the model that the server serves.
            version: the version that the server serves.
            clock: returns the time, seconds since 1970.
            model_folder: the files of the version, which may appear later. The ledger stores their
                digest with the state of the spool: it tells whose records these are.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.checkpoint: Checkpoint = read_checkpoint(folder)
        self.shipped = 0
        self.pending = 0
        self._ledger = ledger
        self._clock = clock
        self._model_folder = model_folder
        self._state = SpoolState(identity(folder), model, version, shipped_until=0.0)
        self._latencies: deque[float] = deque([0.0], maxlen=100)  # the largest of each batch
        self._last_write = float("-inf")

    @property
    def shipped_until(self) -> float:
        """Every record older than this is in the ledger, seconds since 1970; 0 if not known."""
        return self._state.shipped_until

    def ship_batch(self) -> bool:
        """Ship one batch; return True if the spool contains more.

        Raises:
            LedgerError: the ledger did not store the batch. Nothing has changed; try again.
        """
        now = self._clock()  # before reading: the batch contains all that is written by this time
        batch = read_batch(self.folder, self.checkpoint)
        idle = batch.checkpoint == self.checkpoint
        if idle and 0 <= now - self._last_write < IDLE_WRITE_SECONDS:
            return False
        self._latencies.append(max((p.latency for p in batch.predictions), default=0.0))
        state = msgspec.structs.replace(
            self._state,
            lost=batch.checkpoint.lost,
            closed=False,
            shipped_until=self._shipped_until_after(batch, now),
            seen=now,
            digest=self._state.digest or self._read_digest(),
        )
        checkpoint = self._store(batch, state)
        self._last_write = now
        self.pending = batch.pending
        if not idle:
            self._move_checkpoint(checkpoint)
        return not batch.at_end

    def close(self) -> None:
        """Mark the spool as completely shipped. Its server must have ended."""
        closed = msgspec.structs.replace(self._state, closed=True, seen=self._clock())
        self._write([], [], [], closed)
        if self.pending:
            log.warning("the spool ends with an incomplete record of %d bytes", self.pending)

    def _read_digest(self) -> str | None:
        if self._model_folder is None:
            return None
        try:
            return digest(self._model_folder)
        except BrokenVersionError:
            return None  # the files are not complete yet

    def _shipped_until_after(self, batch: SpoolBatch, now: float) -> float:
        """Return the time up to which all records are in the ledger once the batch is stored."""
        # A record has the time at which its request arrived, but it is written with the answer. A
        # request that takes more than twice as long as the slowest of the last batches is stored
        # behind shipped_until; it is not lost.
        longest_request = max(MINIMUM_REQUEST_SECONDS, 2 * max(self._latencies))
        limit = now - longest_request
        if batch.at_end and not batch.pending:
            return limit
        # The spool contains more, so the time does not advance. It goes back if a clock went back
        # and the batch contains records that are older.
        times = [p.time for p in batch.predictions]
        return min([self._state.shipped_until, limit, *times])

    def _store(self, batch: SpoolBatch, state: SpoolState) -> Checkpoint:
        """Store a batch; return the checkpoint after it, which counts refused records as lost."""
        gaps = [self._stored_gap(gap) for gap in batch.gaps]
        try:
            self._write(batch.predictions, batch.labels, gaps, state)
        except (LedgerError, OverflowError) as error:
            if not refuses_values(error):
                raise
            log.warning("the ledger refuses a batch; its records are stored one by one: %s", error)
        else:
            return batch.checkpoint
        single: list[tuple[list[Prediction], list[LabelRecord], list[StoredGap]]] = [
            *(([p], [], []) for p in batch.predictions),
            *(([], [label], []) for label in batch.labels),
            *(([], [], [gap]) for gap in gaps),
        ]
        refused = sum(not self._write_single(*records) for records in single)
        lost = batch.checkpoint.lost + refused
        self._write([], [], [], msgspec.structs.replace(state, lost=lost))
        return msgspec.structs.replace(batch.checkpoint, lost=lost)

    def _write_single(
        self, predictions: list[Prediction], labels: list[LabelRecord], gaps: list[StoredGap]
    ) -> bool:
        """Store a single record; return False if the ledger refuses it."""
        try:
            self._write(predictions, labels, gaps, self._state)
        except (LedgerError, OverflowError) as error:
            if not refuses_values(error):
                raise
            log.warning("the ledger refuses a record; it is lost: %s", error)
            return False
        return True

    def _write(
        self,
        predictions: list[Prediction],
        labels: list[LabelRecord],
        gaps: list[StoredGap],
        state: SpoolState,
    ) -> None:
        store_records(self._ledger, predictions, labels, state, gaps)
        self.shipped += len(predictions) + len(labels)
        self._state = state

    def _stored_gap(self, gap: LocatedGap) -> StoredGap:
        line = gap.line
        return StoredGap(
            spool=self._state.id,
            segment=gap.segment,
            position=gap.position,
            model=line.model,
            version=line.version,
            kind="lost" if isinstance(line, Gap) else "shed",
            protocol="" if isinstance(line, Gap) else line.protocol,
            count=line.lost if isinstance(line, Gap) else line.count,
            since=line.since,
            until=line.until,
        )

    def _move_checkpoint(self, checkpoint: Checkpoint) -> None:
        replace_file(self.folder / CHECKPOINT, msgspec.json.encode(checkpoint))
        self.checkpoint = checkpoint
        for number in segments(self.folder):
            if number < checkpoint.segment:
                segment_path(self.folder, number).unlink()
