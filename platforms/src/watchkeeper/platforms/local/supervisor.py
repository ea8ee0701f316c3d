"""The supervisord of a home: start it, connect to it, change its programs.

The files in ``supervisor/programs`` are the desired state, and :meth:`Supervisor.apply` makes
supervisord compare its programs with them. So any process can repeat an interrupted change.
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

from watchkeeper.core.spool import replace_file
from watchkeeper.platforms.interface import PlatformError
from watchkeeper.platforms.local.home import Home, last_line
from watchkeeper.platforms.local.home_processes import HOME_VARIABLE, terminate_processes
from watchkeeper.platforms.local.http_probe import SocketConnection
from watchkeeper.platforms.local.program import Program

CALL_SECONDS = 10.0
START_SECONDS = 60.0
STOP_SECONDS = 90.0
LEFTOVER_SECONDS = 20.0
POLL_SECONDS = 0.05
# Fault codes of supervisord.
BAD_NAME, NOT_RUNNING, ALREADY_ADDED = 10, 70, 90
CANT_REREAD = 92
# Prefixes of variables that programs must not inherit from the shell of ``watchkeeper up``. Each
# program gets its settings by name; inherited ones could be those of another MLflow or environment.
NOT_INHERITED = ("WATCHKEEPER_", "MLFLOW_", "_MLFLOW_", "PYTHON", "VIRTUAL_ENV", "SUPERVISOR_")
ALIVE = ("STARTING", "RUNNING", "BACKOFF", "STOPPING")


class ProgramState(msgspec.Struct, frozen=True):
    """The state of a program in supervisord.

    Attributes:
        name: The name of the program.
        state: One of supervisord's process states.
        pid: The process id, 0 if the program does not run.
        started: When it was started last, in seconds since 1970.
        exit_code: Of the last end.
    """

    name: str
    state: Literal[
        "STOPPED", "STARTING", "RUNNING", "BACKOFF", "STOPPING", "EXITED", "FATAL", "UNKNOWN"
    ]
    pid: int
    started: int
    exit_code: int


class Supervisor:
    """The supervisord of ``home``, with its socket in the folder ``sockets``.

    Every method raises :class:`PlatformError` if supervisord does not answer.
    """

    def __init__(self, home: Home, sockets: Path) -> None:
        self.home = home
        self.socket = sockets / "supervisor.sock"

    def answers(self) -> bool:
        """Return whether supervisord runs and is not shutting down."""
        try:
            return bool(self._call("getState")["statename"] == "RUNNING")
        except PlatformError:
            return False

    def start(self) -> list[str]:
        """Start supervisord and all programs that have files.

        It first ends the processes that an earlier supervisord has left.

        Returns:
            A description of each process that was ended.
        """
        left_behind = terminate_processes(self.home.folder, LEFTOVER_SECONDS)
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
                start_new_session=True,  # Ctrl-C in the terminal must not end the system
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if process.poll() is not None:
                raise PlatformError(f"supervisord has ended: {last_line(output)} (see {output})")
            if time.monotonic() > deadline:
                raise PlatformError(
                    f"supervisord does not answer after {START_SECONDS:.0f} s (see "
                    f"{self.home.log('supervisord')})"
                )
            time.sleep(POLL_SECONDS)
        process.returncode = 0  # it runs longer than we do, so subprocess must not warn about it
        return left_behind

    def write(self, program: Program) -> None:
        """Write the files of a program; :meth:`apply` puts them into effect."""
        script = self.home.programs / f"{program.name}.sh"
        replace_file(script, program.script().encode())
        replace_file(script.with_suffix(".conf"), program.configuration().encode())

    def apply(self, names: Collection[str]) -> list[str]:
        """Start, restart or stop the programs ``names`` to match their files.

        Returns:
            The names of the programs that have changed.
        """
        # Repeat a reload that reads the files while another process replaces them.
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
        """Run programs. Those that already run with the same definition are not restarted."""
        for program in programs:
            self.write(program)
        return self.apply([program.name for program in programs])

    def program_names(self) -> list[str]:
        """Return the names of all programs that have files."""
        return sorted(path.stem for path in self.home.programs.glob("*.conf"))

    def remove(self, *names: str) -> None:
        """Stop programs and remove them; their logs remain."""
        self.forget(*names)
        self.apply(names)

    def end(self, name: str) -> bool:
        """Send SIGTERM to a program and return at once; return True when it has ended."""
        self.forget(name)
        if self._request_stop({name}):
            return False
        self.apply([name])
        return True

    def forget(self, *names: str) -> None:
        """Remove the files of programs; :meth:`apply` removes the programs."""
        for name in names:
            (self.home.programs / f"{name}.conf").unlink(missing_ok=True)
            (self.home.programs / f"{name}.sh").unlink(missing_ok=True)

    def stop(self, names: Iterable[str]) -> None:
        """Send SIGTERM to programs and wait until they have ended.

        supervisord sends SIGKILL after the ``stop_seconds`` of a program.

        Raises:
            PlatformError: A program does not end.
        """
        wanted = set(names)
        deadline = time.monotonic() + STOP_SECONDS
        while waiting := self._request_stop(wanted):
            if time.monotonic() > deadline:
                late = ", ".join(sorted(waiting))
                raise PlatformError(f"{late}: does not end after SIGKILL")
            time.sleep(POLL_SECONDS)

    def _request_stop(self, names: Collection[str]) -> list[str]:
        """Send SIGTERM to programs that have not got it yet; return those that still run."""
        states = [state for name, state in self.states().items() if name in names] if names else []
        waiting = [state for state in states if _is_alive(state)]
        for state in waiting:
            if state.state != "STOPPING":
                self._call("stopProcess", state.name, False, ignore=(NOT_RUNNING, BAD_NAME))
        return [state.name for state in waiting]

    def states(self) -> dict[str, ProgramState]:
        """Return the state of each program by name."""
        return {
            info["name"]: ProgramState(
                info["name"], info["statename"], info["pid"], info["start"], info["exitstatus"]
            )
            for info in self._call("getAllProcessInfo")
        }

    def pid(self) -> int:
        """Return the process id of supervisord."""
        return int(self._call("getPID"))

    def shut_down(self) -> None:
        """End all programs and supervisord itself."""
        process = psutil.Process(self.pid())
        self._call("shutdown")
        try:
            process.wait(STOP_SECONDS)
        except psutil.TimeoutExpired as error:
            raise PlatformError(
                f"supervisord (process {process.pid}) has not ended after {STOP_SECONDS:.0f} s"
            ) from error

    def _call(
        self,
        method: str,
        *arguments: Any,
        ignore: int | tuple[int, ...] = (),
        repeat_on: int | None = None,
    ) -> Any:
        """Call a method of supervisord's XML-RPC interface.

        Args:
            method: The name of the method.
            *arguments: Its arguments.
            ignore: Faults that mean that the change is already done.
            repeat_on: A fault after which the call is repeated, up to ``CALL_SECONDS``.
        """
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
        self._connection = (host, connection)  # close() of the base class uses it
        return connection


def _is_alive(state: ProgramState) -> bool:
    # supervisord is about to restart a program that has failed.
    return state.state in ALIVE or (state.state == "EXITED" and state.exit_code != 0)


def _environment(home: Path, own: Mapping[str, str] = os.environ) -> dict[str, str]:
    inherited = {key: value for key, value in own.items() if not key.startswith(NOT_INHERITED)}
    # All components use the loopback interface, which a proxy of the user cannot reach.
    loopback = "localhost,127.0.0.1"
    others = own.get("NO_PROXY") or own.get("no_proxy")
    inherited["NO_PROXY"] = inherited["no_proxy"] = f"{others},{loopback}" if others else loopback
    inherited[HOME_VARIABLE] = str(home)
    return inherited
