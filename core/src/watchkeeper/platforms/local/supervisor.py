"""supervisord of one home: start it, find it again, and change what it keeps alive.

The files under ``supervisor/programs`` are the truth; supervisord is told to compare itself with
them. So every change can be repeated, by anybody, after a stop at any line.
"""

import http.client
import os
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import psutil

from watchkeeper.contracts.spool import replace_file
from watchkeeper.platforms.interface import PlatformError
from watchkeeper.platforms.local.asking import SocketConnection
from watchkeeper.platforms.local.home import Home, last_line
from watchkeeper.platforms.local.orphans import MARK, end_marked
from watchkeeper.platforms.local.program import Program

CALL_SECONDS = 10.0
START_SECONDS = 60.0
STOP_SECONDS = 90.0
ORPHAN_SECONDS = 20.0
POLL_SECONDS = 0.05
# Faults of supervisord that mean: it already is as we want it.
BAD_NAME, NOT_RUNNING, ALREADY_ADDED = 10, 70, 90
CANT_REREAD = 92
# Variables of whoever called ``up`` that must not reach the programs: settings are given to each
# by name, and another MLflow's or another environment's would be taken for ours.
FOREIGN = ("WATCHKEEPER_", "MLFLOW_", "_MLFLOW_", "PYTHON", "VIRTUAL_ENV", "SUPERVISOR_")


ALIVE = ("STARTING", "RUNNING", "BACKOFF", "STOPPING")


class State(msgspec.Struct, frozen=True):
    """What supervisord says about a program; ``started`` in seconds since 1970."""

    name: str
    state: Literal[
        "STOPPED", "STARTING", "RUNNING", "BACKOFF", "STOPPING", "EXITED", "FATAL", "UNKNOWN"
    ]
    pid: int
    started: int
    exit_code: int


class Supervisor:
    """The supervisord of ``home``, reached by a socket in the folder ``sockets``."""

    def __init__(self, home: Home, sockets: Path) -> None:
        self.home = home
        self.socket = sockets / "supervisor.sock"

    def answers(self) -> bool:
        """Tell whether supervisord is there and not about to end."""
        try:
            return bool(self._call("getState")["statename"] == "RUNNING")
        except PlatformError:
            return False

    def start(self) -> list[str]:
        """Start supervisord, and with it all programs that have files.

        Processes that an earlier one left behind are ended first; returns what they were.
        """
        left_behind = end_marked(self.home.folder, ORPHAN_SECONDS)
        replace_file(self.home.supervisor / "supervisord.conf", self._configuration().encode())
        output = self.home.log("supervisord.start")
        with output.open("wb") as file:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "supervisor.supervisord",
                    "-n",
                    "-s",
                    "-c",
                    "supervisor/supervisord.conf",
                ],
                cwd=self.home.folder,
                env=_environment(self.home.folder),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal is for make, not for Envoy
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if process.poll() is not None:
                raise PlatformError(f"supervisord ended: {last_line(output)} (see {output})")
            if time.monotonic() > deadline:
                raise PlatformError(
                    f"supervisord does not answer, see {self.home.log('supervisord')}"
                )
            time.sleep(POLL_SECONDS)
        process.returncode = 0  # it outlives us; we are not to warn that we did not wait for it
        return left_behind

    def write(self, program: Program) -> None:
        """Write a program's files; :meth:`apply` makes them come true."""
        script = self.home.programs / f"{program.name}.sh"
        replace_file(script, program.script().encode())
        replace_file(script.with_suffix(".conf"), program.configuration().encode())

    def apply(self, names: Collection[str]) -> list[str]:
        """Make what runs equal to the files of ``names``; return those that were changed."""
        # A reload that meets a file between two renames of another process is just repeated.
        added, changed, removed = self._call("reloadConfig", repeat_on=CANT_REREAD)[0]
        leaving = [name for name in (*changed, *removed) if name in names]
        self.stop(leaving)
        for name in leaving:
            self._call("removeProcessGroup", name, ignore=BAD_NAME)
        for name in (*changed, *added):
            if name in names:
                self._call("addProcessGroup", name, ignore=ALREADY_ADDED)
        return [name for name in (*added, *changed, *removed) if name in names]

    def put(self, *programs: Program) -> list[str]:
        """Have programs run as described; those that do already are left alone."""
        for program in programs:
            self.write(program)
        return self.apply([program.name for program in programs])

    def known(self) -> list[str]:
        """Return the names of all programs that have files."""
        return sorted(path.stem for path in self.home.programs.glob("*.conf"))

    def remove(self, *names: str) -> None:
        """Stop programs and forget them; their logs stay."""
        self.forget(*names)
        self.apply(names)

    def end(self, name: str) -> bool:
        """Ask a program to end and return at once; when it has, forget it and return True."""
        self.forget(name)
        if self._ask_to_end({name}):
            return False
        self.apply([name])
        return True

    def forget(self, *names: str) -> None:
        """Remove the files of programs."""
        for name in names:
            (self.home.programs / f"{name}.conf").unlink(missing_ok=True)
            (self.home.programs / f"{name}.sh").unlink(missing_ok=True)

    def stop(self, names: Iterable[str]) -> None:
        """Ask programs to end, all at once, and wait until they have.

        supervisord kills a program that takes longer than its ``stop_seconds``.

        Raises:
            PlatformError: one lives on although it was killed.
        """
        wanted = set(names)
        deadline = time.monotonic() + STOP_SECONDS
        while waiting := self._ask_to_end(wanted):
            if time.monotonic() > deadline:
                late = ", ".join(sorted(waiting))
                raise PlatformError(f"{late}: does not end, even when killed")
            time.sleep(POLL_SECONDS)

    def _ask_to_end(self, names: Collection[str]) -> list[str]:
        """Ask programs to end, those that were not asked yet; return those that still live."""
        states = [state for name, state in self.states().items() if name in names] if names else []
        waiting = [state for state in states if _lives(state)]
        for state in waiting:
            if state.state != "STOPPING":
                self._call("stopProcess", state.name, False, ignore=(NOT_RUNNING, BAD_NAME))
        return [state.name for state in waiting]

    def states(self) -> dict[str, State]:
        """Return all programs that supervisord knows, by name."""
        return {
            info["name"]: State(
                info["name"], info["statename"], info["pid"], info["start"], info["exitstatus"]
            )
            for info in self._call("getAllProcessInfo")
        }

    def pid(self) -> int:
        """Return supervisord's own process id."""
        return int(self._call("getPID"))

    def shut_down(self) -> None:
        """End supervisord and whatever it still runs."""
        process = psutil.Process(self.pid())
        self._call("shutdown")
        try:
            process.wait(STOP_SECONDS)
        except psutil.TimeoutExpired as error:
            raise PlatformError(f"supervisord {process.pid} does not end") from error

    def _call(
        self,
        method: str,
        *arguments: Any,
        ignore: int | tuple[int, ...] = (),
        repeat_on: int | None = None,
    ) -> Any:
        ignored = (ignore,) if isinstance(ignore, int) else ignore
        deadline = time.monotonic() + CALL_SECONDS
        while True:
            try:
                with xmlrpc.client.ServerProxy(
                    "http://localhost", transport=_Transport(self.socket), allow_none=True
                ) as proxy:
                    return getattr(proxy.supervisor, method)(*arguments)
            except xmlrpc.client.Fault as fault:
                if fault.faultCode in ignored:
                    return None
                if fault.faultCode != repeat_on or time.monotonic() > deadline:
                    raise PlatformError(
                        f"supervisord, {method}{arguments}: {fault.faultString}"
                    ) from fault
                time.sleep(POLL_SECONDS)
            except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
                raise PlatformError(
                    f"supervisord of {self.home.folder} does not answer ({error}): "
                    "'watchkeeper up' starts it again"
                ) from error

    def _configuration(self) -> str:
        return f"""[supervisord]
logfile=logs/supervisord.log
logfile_maxbytes=10MB
logfile_backups=2
pidfile=supervisor/supervisord.pid
[unix_http_server]
file={str(self.socket).replace("%", "%%")}
chmod=0600
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[include]
files=programs/*.conf
"""


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = SocketConnection(self.path, CALL_SECONDS)
        self._connection = (host, connection)  # where close() looks for it
        return connection


def _lives(state: State) -> bool:
    # One that failed is about to be started again, and would be, had we not asked it to stop.
    return state.state in ALIVE or (state.state == "EXITED" and state.exit_code != 0)


def _environment(home: Path, own: Mapping[str, str] = os.environ) -> dict[str, str]:
    kept = {key: value for key, value in own.items() if not key.startswith(FOREIGN)}
    # Everything here talks over the loopback interface, whatever proxy the user has.
    loopback = "localhost,127.0.0.1"
    others = own.get("NO_PROXY") or own.get("no_proxy")
    kept["NO_PROXY"] = kept["no_proxy"] = f"{others},{loopback}" if others else loopback
    kept[MARK] = str(home)
    return kept
