"""The writer of the spool: whole lines, in segments of bounded size, up to a limit in all.

No answer leaves before its record was written here, so that a kill loses no answered request;
nothing waits for a disk, because the kernel has the bytes. The layout is that of
``watchkeeper.contracts.spool``.
"""

import contextlib
import errno
import time
from pathlib import Path

import msgspec

from watchkeeper.contracts import spool as layout
from watchkeeper.contracts.record import Gap
from watchkeeper.serving.segment import Segment

SEGMENT_BYTES = 16 * 1024 * 1024
_GAP_BYTES = 512  # more than a line that reports a gap
_LOOK_AGAIN = 0.1  # seconds between two looks for room in a full spool
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Spool:
    """Appends lines to the highest segment of a folder, up to ``limit`` bytes in all.

    Raises:
        OSError: the folder cannot be written, or files in it cannot be mapped into memory.
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
        self._looked = 0.0
        self._room = 0  # bytes that can be written before anything else has to be looked at
        # Always a new one: the last line of the one before may be torn.
        self._number, self._segment = self._next()
        try:
            self._segment.reserve(1)
        except OSError as error:
            if error.errno not in _FULL:  # a volume that is full may have room later
                raise
        self.used = self._measure()

    def write(self, lines: bytes) -> bool:
        """Append whole lines, and tell whether they are kept: all of them or none.

        What found no room is not counted: the caller says with :meth:`lose` what is lost.
        """
        size = len(lines)
        try:
            if size > self._room and not self._make_room(size):
                return False
        except OSError:  # the volume is full before our own limit: the same to the caller
            return False
        self._append(lines)
        return True

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
        self._room = 0
        self._segment.close()

    def _append(self, lines: bytes) -> None:
        self._segment.append(lines)
        self.used += len(lines)
        self._room -= len(lines)

    def _make_room(self, size: int) -> bool:
        """Look at all that no line has to look at for itself: the limit, the segment, a gap."""
        needed = size + (_GAP_BYTES if self._lost else 0)
        if not self._fits(needed):
            return False
        if self._segment.size >= self._segment_bytes:
            full = self._segment
            self._number, self._segment = self._next()
            with contextlib.suppress(OSError):  # it has all its lines; what is cut off are zeros
                full.close()
            self.used = self._measure()
        self._segment.reserve(needed)
        if self._lost:
            gap = Gap(self._model, self._version, self._lost, self._lost_since, time.time())
            self._append(msgspec.json.encode(gap) + b"\n")
            self._lost = 0
        left = self._segment_bytes - self._segment.size
        self._room = max(size, min(left, self._segment.room, self._limit - self.used))
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
        used = self._segment.size
        for number in layout.segments(self._folder):
            if number < self._number:
                # the sidecar may just have deleted it
                with contextlib.suppress(FileNotFoundError):
                    used += layout.segment_path(self._folder, number).stat().st_size
        return used

    def _next(self) -> tuple[int, Segment]:
        number = max(layout.segments(self._folder), default=0) + 1
        return number, Segment(layout.segment_path(self._folder, number))
