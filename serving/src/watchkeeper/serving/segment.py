"""A segment of the spool, written through mapped memory.

The kernel has the bytes as soon as they are copied, so a killed process loses none of them. A call
of ``write`` would cost more than everything else about a record, because it enters the file system
each time. The copy into mapped pages costs too little to measure.
"""

import errno
import mmap
import os
from pathlib import Path

_MAP_BYTES = 256 * 1024  # allocated and mapped at once
_MADV_POPULATE_WRITE = 23  # of madvise(2); the standard library has no name for it


class Segment:
    """A new file that grows by whole lines.

    ``size`` is the number of bytes written. Until the segment is closed, the file is longer: zeros
    follow the last line.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o644)
        self._mapped = memoryview(bytearray())
        self._offset = 0  # of the mapped memory in the file
        self.size = 0

    @property
    def room(self) -> int:
        """How many bytes can be appended without :meth:`reserve`."""
        return self._offset + len(self._mapped) - self.size

    def reserve(self, size: int) -> None:
        """Make room for ``size`` bytes.

        The blocks are allocated first, because a write to mapped memory cannot report an error.

        Raises:
            OSError: The volume is full or fails, or its files cannot be mapped.
        """
        if size <= self.room:
            return
        start = self.size - self.size % mmap.PAGESIZE
        end = self.size + max(size, _MAP_BYTES)
        length = end - start + -end % mmap.PAGESIZE
        os.posix_fallocate(self._file, start, length)
        pages = mmap.mmap(self._file, length, offset=start)
        try:
            pages.madvise(_MADV_POPULATE_WRITE)
        except OSError as error:
            if error.errno != errno.EINVAL:  # before Linux 5.14; pages are then mapped on demand
                raise
        self._mapped, self._offset = memoryview(pages), start

    def append(self, lines: bytes) -> None:
        """Append lines for which there is room."""
        start = self.size - self._offset
        self._mapped[start : start + len(lines)] = lines
        self.size += len(lines)

    def close(self) -> None:
        """Cut the file after its last line and close it."""
        self._mapped = memoryview(bytearray())
        self._offset = self.size
        file, self._file = self._file, -1
        try:
            os.ftruncate(file, self.size)
        finally:
            os.close(file)
