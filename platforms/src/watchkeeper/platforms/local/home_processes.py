"""Find and end the processes of a local system, including those that a crash has left.

supervisord starts with a variable in its environment that names its home. All its descendants
inherit it, so they can be found after supervisord was killed. A process id alone is not enough,
because another process may have it after a crash. psutil also compares the start time before it
sends a signal.
"""

import os
from pathlib import Path

import psutil

from watchkeeper.platforms.interface import PlatformError

HOME_VARIABLE = "WATCHKEEPER_SUPERVISED_BY"
KILL_SECONDS = 5.0


def find_processes(home: Path) -> list[psutil.Process]:
    """Return the running processes of a home, without this process and its ancestors."""
    excluded = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            if (
                process.pid not in excluded
                and process.environ().get(HOME_VARIABLE) == str(home)
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue  # it has ended, or belongs to another user
    return found


def terminate_processes(home: Path, seconds: float) -> list[str]:
    """End all processes of a home: SIGTERM, and SIGKILL after ``seconds``.

    Returns:
        A description of each process that was found.

    Raises:
        PlatformError: A process does not end.
    """
    ended: dict[int, str] = {}
    for kill in (False, True, True):  # twice, because a killed process may have started another one
        remaining = find_processes(home)
        for process in remaining:
            ended[process.pid] = _describe(process)
            try:
                process.kill() if kill else process.terminate()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(remaining, timeout=KILL_SECONDS if kill else seconds)
    if remaining := find_processes(home):
        names = "; ".join(_describe(process) for process in remaining)
        raise PlatformError(f"processes do not end after SIGKILL: {names}")
    return list(ended.values())


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:120]}"
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return str(process.pid)
