"""The writer of the spool: whole lines, one write for those that come together.

No answer leaves before its record was written here, so that a kill loses no answered request;
nothing waits for a disk, because the kernel has the bytes. The layout is that of
``watchkeeper.contracts.spool``.
"""

import os
import time
from pathlib import Path

import msgspec

from watchkeeper.contracts import spool as layout
from watchkeeper.contracts.record import Gap

SEGMENT_BYTES = 16 * 1024 * 1024
_GAP_BYTES = 512  # more than a line that reports a gap
_LOOK_AGAIN = 0.1  # seconds between two looks for room in a full spool


class Spool:
    """Appends lines to the highest segment of a folder, up to ``limit`` bytes in all."""

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
        self._looked = 0.0
        self._file, self._size, self._torn = -1, 0, False
        # Always a new one: the last line of the one before may be torn.
        self._begin()
        self.used = self._measure()

    def write(self, lines: bytes) -> int:
        """Append whole lines with one write, and return how many of them found room.

        What did not fit is not counted: the caller says with :meth:`lose` that it is lost.
        """
        if self._lost and not (self._fits(len(lines) + _GAP_BYTES) and self._report()):
            return 0
        return self._append(lines)

    def lose(self, records: int, now: float) -> None:
        """Count records that could not be kept; a Gap reports them once there is room again."""
        self._lost_since = self._lost_since if self._lost else now
        self._lost += records

    def close(self) -> None:
        """Report what was lost, if there is room now, and close the segment."""
        if self._lost:
            self._report()
        os.close(self._file)

    def _report(self) -> bool:
        gap = Gap(self._model, self._version, self._lost, self._lost_since, time.time())
        if not self._append(msgspec.json.encode(gap) + b"\n"):
            return False
        self._lost = 0
        return True

    def _append(self, lines: bytes) -> int:
        if not self._fits(len(lines)):
            return 0
        try:
            if self._torn or self._size >= self._segment_bytes:
                self._begin()
            written = os.write(self._file, lines)
        except OSError:  # the volume is full before our own limit: the same to the caller
            return 0
        self.used += written
        self._size += written
        self._torn = written < len(lines)  # nothing may follow a torn line
        return lines.count(b"\n", 0, written)

    def _fits(self, size: int) -> bool:
        if self.used + size <= self._limit:
            return True
        now = time.monotonic()
        if now - self._looked < _LOOK_AGAIN:
            return False
        self._looked = now
        self.used = self._measure()
        return self.used + size <= self._limit

    def _measure(self) -> int:
        used = 0
        for number in layout.segments(self._folder):
            try:
                used += layout.segment_path(self._folder, number).stat().st_size
            except FileNotFoundError:  # the sidecar has just deleted it
                continue
        return used

    def _begin(self) -> None:
        number = max(layout.segments(self._folder), default=0) + 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        file = os.open(layout.segment_path(self._folder, number), flags, 0o644)
        if self._file >= 0:
            os.close(self._file)
        self._file, self._size, self._torn = file, 0, False
