"""Where the trials of a study are stored, for one process or for several workers."""

import os
import warnings
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Final

from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

HEARTBEAT_SECONDS: Final = 60


def open_storage(where: str | Path | None) -> BaseStorage:
    """Open the storage of a study.

    Args:
        where: the URL of a database for SQLAlchemy, or a journal file for processes of one machine,
            or None for the memory of this process. A database knows by heartbeats which workers
            live, and fails the trials of the others. With a journal file, the process that has
            started the workers calls
            :func:`watchkeeper.training.study.fail_running` when they have ended.
    """
    if where is None:
        return InMemoryStorage()
    if isinstance(where, Path):
        lock = _FileLock(where.with_name(f"{where.name}.lock"))
        return JournalStorage(JournalFileBackend(str(where), lock))
    with warnings.catch_warnings():
        # Optuna calls heartbeats experimental, and has had them since 2021.
        warnings.simplefilter("ignore", ExperimentalWarning)
        return RDBStorage(where, heartbeat_interval=HEARTBEAT_SECONDS)


class _FileLock(JournalFileOpenLock):
    """A lock that ends with its process; Optuna's own locks outlive a killed process by 30 s."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._file = -1

    def acquire(self) -> bool:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT)
        flock(self._file, LOCK_EX)
        return True

    def release(self) -> None:
        os.close(self._file)
