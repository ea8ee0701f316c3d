"""A segment of a spool, written as memory: what is appended is in the kernel's hands at once.

A call of ``write`` would cost more than all else about a record, because the kernel's file system
then comes between the model and its answers each time; copying into mapped pages costs nothing that
can be measured beside the rest. A process that is killed loses none of it either.
"""

import errno
import mmap
import os
from pathlib import Path

_WINDOW = 256 * 1024  # bytes that are allocated and mapped at once
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE of madvise(2); the standard library has no name for it


class Segment:
    """A new file that grows by whole lines; ``size`` is how many bytes of them it has.

    The file itself is longer, by zeros, until it is closed.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o644)
        self._window = memoryview(bytearray())
        self._start = 0  # where in the file the window begins
        self.size = 0

    @property
    def room(self) -> int:
        """How many bytes can be appended now."""
        return self._start + len(self._window) - self.size

    def reserve(self, size: int) -> None:
        """Have room for ``size`` bytes.

        The blocks are allocated first, because no error can be told of a write to memory.

        Raises:
            OSError: the volume is full or fails, or its files cannot be mapped.
        """
        if size <= self.room:
            return
        start = self.size - self.size % mmap.PAGESIZE
        end = self.size + max(size, _WINDOW)
        length = end - start + -end % mmap.PAGESIZE
        os.posix_fallocate(self._file, start, length)
        pages = mmap.mmap(self._file, length, offset=start)
        try:
            pages.madvise(_POPULATE_WRITE)
        except OSError as error:
            if error.errno != errno.EINVAL:  # before Linux 5.14 each page comes when it is needed
                raise
        self._window, self._start = memoryview(pages), start

    def append(self, lines: bytes) -> None:
        """Append what there is room for."""
        begin = self.size - self._start
        self._window[begin : begin + len(lines)] = lines
        self.size += len(lines)

    def close(self) -> None:
        """End the file behind its last line."""
        self._window = memoryview(bytearray())
        self._start = self.size
        file, self._file = self._file, -1
        try:
            os.ftruncate(file, self.size)
        finally:
            os.close(file)
