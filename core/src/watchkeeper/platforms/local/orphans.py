"""Processes of a system that nobody keeps any more: what a killed supervisord leaves behind.

supervisord starts with a mark in its environment that all its descendants inherit. A pid alone
says nothing after a crash; mark, pid and start time together do (psutil compares the start time
before it sends a signal).
"""

import os
from pathlib import Path

import psutil

from watchkeeper.platforms.interface import PlatformError

MARK = "WATCHKEEPER_SUPERVISED_BY"


def marked(home: Path) -> list[psutil.Process]:
    """Return the living processes of a home, this one and its ancestors excepted."""
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            if (
                process.pid not in spared
                and process.environ().get(MARK) == str(home)
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue  # it ended, or is another user's: neither is ours
    return found


def end_marked(home: Path, seconds: float) -> list[str]:
    """End all processes of a home: ask, wait up to ``seconds``, then kill. Return who was there."""
    ended: dict[int, str] = {}
    for kill in (False, True, True):  # killed ones may have started others just before
        remaining = marked(home)
        for process in remaining:
            ended[process.pid] = _describe(process)
            try:
                process.kill() if kill else process.terminate()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(remaining, timeout=5.0 if kill else seconds)
    if remaining := marked(home):
        names = "; ".join(_describe(process) for process in remaining)
        raise PlatformError(f"processes that do not end even when killed: {names}")
    return list(ended.values())


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:120]}"
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return str(process.pid)
