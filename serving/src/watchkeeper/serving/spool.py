"""The writer of the spool: whole lines in segments of limited size, up to a limit in total.

A record is written before its answer leaves, so a killed process loses no answered request. The
kernel has the bytes then; no request waits for a disk. :mod:`watchkeeper.core.spool` defines the
layout of the folder.
"""

import contextlib
import errno
import time
from pathlib import Path

import msgspec

from watchkeeper.core import spool as layout
from watchkeeper.core.record import Gap
from watchkeeper.serving.segment import Segment

SEGMENT_BYTES = 16 * 1024 * 1024
_GAP_BYTES = 512  # more than the line of a Gap
_RETRY_SECONDS = 0.1  # between two searches for room in a full spool
_VOLUME_FULL = (errno.ENOSPC, errno.EDQUOT)


class SpoolWriter:
    """Appends lines to the newest segment of a folder.

    Args:
        folder: The folder of the spool; it is created if it is missing.
        model: Name of the model, for the record of a gap.
        version: Number of the version, for the record of a gap.
        limit: Limit for all segments together, in bytes.
        segment_bytes: Size from which a segment is complete, in bytes.

    Raises:
        OSError: The folder cannot be written, or its files cannot be mapped into memory.
    """

    def __init__(
        self, folder: Path, model: str, version: int, limit: int, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        layout.identity(folder)
        self._folder = folder
        self._model, self._version = model, version
        self._limit = limit
        self._segment_bytes = min(segment_bytes, max(limit // 8, 1))
        self._lost = 0
        self._lost_since = 0.0
        self._measured = 0.0  # monotonic time
        self._room = 0  # bytes that can be written without a further check
        # Always a new segment: a crash can have cut the last line of the previous one.
        self._number, self._segment = self._create_segment()
        try:
            self._segment.reserve(1)
        except OSError as error:
            if error.errno not in _VOLUME_FULL:  # a full volume can have room later
                raise
        self.used_bytes = self._measure()

    def write(self, lines: bytes) -> bool:
        """Append whole lines.

        Returns:
            True if all lines are written, False if none is, because the spool or the volume is
            full. The caller reports lost records with :meth:`count_lost`.
        """
        size = len(lines)
        try:
            if size > self._room and not self._make_room(size):
                return False
        except OSError:  # the volume is full before the spool's own limit
            return False
        self._append(lines)
        return True

    def count_lost(self, records: int, since: float) -> None:
        """Count records that were not written, the first one at ``since`` (seconds since 1970).

        A Gap in the spool reports them as soon as there is room.
        """
        self._lost_since = self._lost_since if self._lost else since
        self._lost += records
        self._room = 0

    def close(self) -> None:
        """Report lost records if there is room, and close the segment."""
        if self._lost:
            with contextlib.suppress(OSError):
                self._make_room(0)
        self._room = 0
        self._segment.close()

    def _append(self, lines: bytes) -> None:
        self._segment.append(lines)
        self.used_bytes += len(lines)
        self._room -= len(lines)

    def _make_room(self, size: int) -> bool:
        """Do what :meth:`write` does not do for every line: limit, segment, gap."""
        needed = size + (_GAP_BYTES if self._lost else 0)
        if not self._fits(needed):
            return False
        if self._segment.size >= self._segment_bytes:
            complete = self._segment
            self._number, self._segment = self._create_segment()
            with contextlib.suppress(OSError):  # all lines are written; only zeros remain behind
                complete.close()
            self.used_bytes = self._measure()
        self._segment.reserve(needed)
        if self._lost:
            gap = Gap(self._model, self._version, self._lost, self._lost_since, time.time())
            self._append(msgspec.json.encode(gap) + b"\n")
            self._lost = 0
        left = self._segment_bytes - self._segment.size
        self._room = max(size, min(left, self._segment.room, self._limit - self.used_bytes))
        return True

    def _fits(self, size: int) -> bool:
        if self.used_bytes + size <= self._limit:
            return True
        now = time.monotonic()
        if now - self._measured < _RETRY_SECONDS:
            return False
        self._measured = now
        self.used_bytes = self._measure()
        return self.used_bytes + size <= self._limit

    def _measure(self) -> int:
        used = self._segment.size
        for number in layout.segments(self._folder):
            if number < self._number:
                # The sidecar deletes segments at any time.
                with contextlib.suppress(FileNotFoundError):
                    used += layout.segment_path(self._folder, number).stat().st_size
        return used

    def _create_segment(self) -> tuple[int, Segment]:
        number = max(layout.segments(self._folder), default=0) + 1
        return number, Segment(layout.segment_path(self._folder, number))
