"""Where the trials of a study are stored, for one process or for several workers."""

import os
from fcntl import LOCK_EX, flock
from pathlib import Path

from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock


def open_storage(journal: Path | None) -> BaseStorage:
    """Open the storage of a study.

    Args:
        journal: a file for processes of one machine, or None for the memory of this process. The
            process that has started the workers calls
            :func:`watchkeeper.training.study.fail_running` when they have ended.
    """
    if journal is None:
        return InMemoryStorage()
    return JournalStorage(JournalFileBackend(str(journal), _FileLock(journal)))


class _FileLock(JournalFileOpenLock):
    """The lock of a journal for those who write into it.

    It ends with its process; Optuna's own locks outlive a killed process by 30 s.
    """

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal))
        self._journal = journal
        self._file = -1

    def acquire(self) -> bool:
        self._file = os.open(f"{self._journal}.lock", os.O_RDWR | os.O_CREAT)
        flock(self._file, LOCK_EX)
        _cut_half_line(self._journal)
        return True

    def release(self) -> None:
        os.close(self._file)


def _cut_half_line(journal: Path) -> None:
    """Remove what a process has left that was killed while it wrote a line.

    The next line would be appended to it, and then no process could read the journal.
    """
    with journal.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read() != b"\n":  # hardly ever, so the whole file is read only then
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
