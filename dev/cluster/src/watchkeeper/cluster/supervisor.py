"""Keep the node's programs running and reap orphans, as the first process in the namespaces.

Level-triggered: each turn reads ``programs.json`` (the programs that shall run) and the folder
``hold`` (the programs that are stopped for now), and starts or stops programs. SIGKILL from outside
ends the supervisor and with it everything in its namespaces.
"""

import logging
import os
import signal
import time
from pathlib import Path

import msgspec

from watchkeeper.cluster.layout import write
from watchkeeper.cluster.programs import Program

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
LOG_BYTES = 20 * 2**20
STEADY_SECONDS = 30.0  # a program that ran this long is restarted at once
LONGEST_PAUSE = 10.0
ENDING_SECONDS = 10.0


class Status(msgspec.Struct):
    """The status of a program; ``exits`` counts its ends since the supervisor started."""

    pid: int = 0
    exits: int = 0
    last_exit: str = ""


class Supervisor:
    """Runs the programs in ``programs``, except those with a file in ``hold``."""

    def __init__(self, programs: Path, hold: Path, logs: Path, status: Path) -> None:
        self._programs_file = programs
        self._hold = hold
        self._logs = logs
        self._status_file = status
        self._programs: dict[str, Program] = {}
        self._running: dict[str, Program] = {}
        self._status: dict[str, Status] = {}
        self._started: dict[str, float] = {}
        self._ending: dict[str, float] = {}
        self._quick_exits: dict[str, int] = {}

    def run(self) -> None:
        """Run until killed."""
        # The blocked signal wakes sigtimedwait. Children start without the block.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        while True:
            self.turn()
            signal.sigtimedwait({signal.SIGCHLD}, LOOK_SECONDS)

    def turn(self) -> None:
        """Start and stop programs once."""
        self._reap()
        data = self._programs_file.read_bytes() if self._programs_file.exists() else b"[]"
        self._programs = {one.name: one for one in msgspec.json.decode(data, type=list[Program])}
        held = {path.name for path in self._hold.iterdir()}
        for name, running in list(self._running.items()):
            if name in held or self._programs.get(name) != running:
                self._end(name)
        for name, program in self._programs.items():
            if name not in self._running and name not in held and self._may_start(name):
                self._start(program)
        self._cap_logs()
        write(self._status_file, msgspec.json.encode(self._status).decode())

    def _may_start(self, name: str) -> bool:
        pause = min(LONGEST_PAUSE, 0.5 * 2 ** min(self._quick_exits.get(name, 0), 8))
        return name not in self._started or time.monotonic() - self._started[name] >= pause

    def _start(self, program: Program) -> None:
        status = self._status.setdefault(program.name, Status())
        # O_APPEND: after a truncation, writes continue at the new end.
        log_file = os.open(
            self._logs / f"{program.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
        )
        null = os.open(os.devnull, os.O_RDONLY)
        actions = [
            (os.POSIX_SPAWN_DUP2, null, 0),
            (os.POSIX_SPAWN_DUP2, log_file, 1),
            (os.POSIX_SPAWN_DUP2, log_file, 2),
        ]
        self._started[program.name] = time.monotonic()
        try:
            status.pid = os.posix_spawnp(
                program.command[0],
                program.command,
                os.environ,
                file_actions=actions,
                setsid=True,
                setsigmask=(),
            )
        except OSError as error:
            self._ended(program.name, f"could not be started: {error}")
        else:
            self._running[program.name] = program
            log.info("%s: started as %d", program.name, status.pid)
        finally:
            os.close(log_file)
            os.close(null)

    def _end(self, name: str) -> None:
        """Send SIGTERM to a program, and SIGKILL after ten seconds."""
        since = self._ending.setdefault(name, time.monotonic())
        overdue = time.monotonic() - since > ENDING_SECONDS
        os.kill(self._status[name].pid, signal.SIGKILL if overdue else signal.SIGTERM)

    def _reap(self) -> None:
        """Reap all children, including orphans, which the kernel gives to the first process."""
        while True:
            try:
                pid, code = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for name in list(self._running):
                if self._status[name].pid == pid:
                    ended = os.waitstatus_to_exitcode(code)
                    how = f"signal {-ended}" if ended < 0 else f"exit code {ended}"
                    del self._running[name]
                    self._ended(name, how)

    def _ended(self, name: str, how: str) -> None:
        status = self._status[name]
        status.pid = 0
        status.last_exit = how
        if self._ending.pop(name, None) is not None:
            log.info("%s: stopped", name)
            return
        status.exits += 1
        steady = time.monotonic() - self._started[name] > STEADY_SECONDS
        self._quick_exits[name] = 0 if steady else self._quick_exits.get(name, 0) + 1
        log.warning("%s: ended by itself (%s)", name, how)

    def _cap_logs(self) -> None:
        for path in self._logs.glob("*.log"):
            if path.stat().st_size > LOG_BYTES:
                path.with_suffix(".log.1").write_bytes(path.read_bytes())
                os.truncate(path, 0)
