"""The writer of the spool: whole lines, one write for those that come together.

No answer leaves before its record was written here, so that a kill loses no answered request;
nothing waits for a disk, because the kernel has the bytes. The layout is that of
``watchkeeper.contracts.spool``.
"""

import contextlib
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
        self._file, self._torn = -1, False
        self._room = 0  # bytes that can be written before anything else has to be looked at
        # Always a new one: the last line of the one before may be torn.
        self._begin()
        self.used = self._measure()

    def write(self, lines: bytes) -> int:
        """Append whole lines with one write, and return of how many bytes those are that are kept.

        What did not fit is not counted: the caller says with :meth:`lose` that it is lost.
        """
        size = len(lines)
        try:
            if size > self._room and not self._make_room(size):
                return 0
            written = self._append(lines)
        except OSError:  # the volume is full before our own limit: the same to the caller
            return 0
        return written if written == size else lines.rfind(b"\n", 0, written) + 1

    def lose(self, records: int, now: float) -> None:
        """Count records that could not be kept; a Gap reports them once there is room again."""
        self._lost_since = self._lost_since if self._lost else now
        self._lost += records
        self._room = 0

    def close(self) -> None:
        """Report what was lost, if there is room now, and close the segment."""
        if self._lost:
            with contextlib.suppress(OSError):
                self._make_room(0)
        os.close(self._file)

    def _append(self, lines: bytes) -> int:
        written = os.write(self._file, lines)
        self.used += written
        self._room -= written
        if written < len(lines):  # nothing may follow a torn line
            self._torn, self._room = True, 0
        return written

    def _make_room(self, size: int) -> bool:
        """Look at all that no line has to look at for itself: the limit, the segment, a gap."""
        if not self._fits(size + (_GAP_BYTES if self._lost else 0)):
            return False
        if self._torn or os.fstat(self._file).st_size >= self._segment_bytes:
            self._begin()
        if self._lost:
            gap = Gap(self._model, self._version, self._lost, self._lost_since, time.time())
            self._append(msgspec.json.encode(gap) + b"\n")
            if self._torn:
                return False
            self._lost = 0
        left = self._segment_bytes - os.fstat(self._file).st_size
        self._room = max(size, min(left, self._limit - self.used))
        return True

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
        self._file, self._torn = file, False
