"""Serve versions with processes: start them, find their state, retire them.

serving/<model>-v<version>/
    version.json    the ports, which survive restarts
    model/          the version's files, fetched by the role ``initialize``
    spool/          records, written by the server and shipped by the sidecar
    fetching        exists while the version's files are fetched from the registry
    starts          one character for each start of the server since it was last ready

Folders with a leading dot are what an interrupted removal has left.
"""

import contextlib
import logging
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path

import msgspec

from watchkeeper.core import spool
from watchkeeper.core.names import serving_name
from watchkeeper.platforms.interface import PlatformError, ServingStatus
from watchkeeper.platforms.local.home import Home, last_line, locked, read_struct, write_struct
from watchkeeper.platforms.local.http_probe import get
from watchkeeper.platforms.local.ports import free_port, is_free, is_taken_by_other
from watchkeeper.platforms.local.program import Program
from watchkeeper.platforms.local.supervisor import ProgramState, Supervisor
from watchkeeper.platforms.local.version_programs import (
    ServedVersion,
    server_program,
    sidecar_program,
)

log = logging.getLogger(__name__)

READY_SECONDS = 2.0
CHANGE_SECONDS = 100.0
PORTS_SECONDS = 5.0
LISTENING_SECONDS = 60.0  # after this time a process listens on its ports, or has ended
FAILED_AFTER = 4  # starts without being ready once


class ServedVersions:
    """All versions that are served in a home."""

    def __init__(self, home: Home, supervisor: Supervisor) -> None:
        self.home = home
        self.supervisor = supervisor

    def folder(self, model: str, version: int) -> Path:
        """Return the folder of a version."""
        return self.home.serving / serving_name(model, version)

    def find(self, model: str, version: int) -> ServedVersion | None:
        """Return a version, None if it is not served."""
        return read_struct(self.folder(model, version) / "version.json", ServedVersion)

    def all(self, model: str = "") -> list[ServedVersion]:
        """Return all versions, or those of one model, ordered by model and version."""
        paths = self.home.serving.glob("[!.]*/version.json")
        found = [served for path in paths if (served := read_struct(path, ServedVersion))]
        return sorted(
            (served for served in found if model in ("", served.model)),
            key=lambda served: (served.model, served.version),
        )

    def programs(self, served: ServedVersion) -> list[Program]:
        """Return the programs that should run for a version; none if it is retiring."""
        if served.retiring:
            return []
        config, folder = self.home.read_config(), self.folder(served.model, served.version)
        return [server_program(served, folder, config), sidecar_program(served, folder, config)]

    def status(self, served: ServedVersion) -> ServingStatus:
        """Return how a version is served. This method changes nothing."""
        return msgspec.structs.replace(self._status(served), digest=served.digest)

    def _status(self, served: ServedVersion) -> ServingStatus:
        if served.retiring:
            return ServingStatus(served.version, "retiring", "its processes are ending")
        programs = self.supervisor.states()
        if not _has_started(served, programs):
            return ServingStatus(served.version, "starting", "its processes are not started yet")
        not_ready = _not_ready_reason(served)
        # After the probe, because another program on the port may have answered it.
        if lost := self._lost_ports(served, programs):
            return ServingStatus(
                served.version, "starting", f"other programs have its ports {lost}"
            )
        if not_ready is not None:
            return self._not_ready_status(served, not_ready)
        return ServingStatus(served.version, "ready")

    def add(self, model: str, version: int, digest: str) -> None:
        """Serve a version. One that is retiring must be gone first: call this method again."""
        with self._change_lock(model):
            served = self.find(model, version)
            if served is not None and served.retiring:
                if not self._remove(served):
                    return
                served = None
            if served is None:
                served = self._create(model, version, digest)
            self.supervisor.put(*self.programs(served))

    def retire(self, served: ServedVersion) -> bool:
        """Take the next step of the removal: server, sidecar, folder. Return True when it is gone.

        The spool remains if it has records that are not shipped.
        """
        with self._change_lock(served.model):
            return self._remove(served)

    def reconcile(self, model: str) -> None:
        """Start the processes of a model that do not run, on other ports if theirs are taken.

        It also resets the count of starts of a version that is ready.
        """
        for served in self.all(model):
            if served.retiring:
                continue
            programs = self.supervisor.states()
            starts = self.folder(model, served.version) / "starts"
            if not _has_started(served, programs):
                self._start(served)
                continue
            ready = starts.exists() and _not_ready_reason(served) is None
            if lost := self._lost_ports(served, programs):
                self._start(served, lost)
            elif ready:
                starts.unlink(missing_ok=True)

    def replace_taken_ports(self) -> None:
        """Give other ports to versions whose ports are taken.

        Only call it while supervisord does not run: then no process of this system uses a port.
        """
        for served in self.all():
            self._move(served, [port for port in served.ports if not is_free(port)])

    def _not_ready_status(self, served: ServedVersion, reason: str) -> ServingStatus:
        folder = self.folder(served.model, served.version)
        log_file = self.home.log(served.server_program)
        starts = folder / "starts"
        count = len(starts.read_bytes()) if starts.exists() else 0
        if count >= FAILED_AFTER:
            last = f"{last_line(log_file)} (see {log_file})"
            return ServingStatus(
                served.version, "failed", f"started {count} times and never ready: {last}"
            )
        if (folder / "fetching").exists():
            reason = last_line(log_file) or "they are being fetched"
            return ServingStatus(served.version, "waiting", f"for its files: {reason}")
        return ServingStatus(served.version, "starting", reason)

    def _start(self, served: ServedVersion, lost: Collection[int] = ()) -> None:
        """Start the processes of a version, with other ports instead of ``lost``.

        Does nothing while another process changes a version of this model.
        """
        with locked(self._lock_file(served.model), 0) as acquired:
            if acquired and self.find(served.model, served.version) == served:
                self.supervisor.put(*self.programs(self._move(served, lost)))
                if lost:  # the starts that failed for this reason are not the version's fault
                    starts = self.folder(served.model, served.version) / "starts"
                    starts.unlink(missing_ok=True)

    def _lost_ports(self, served: ServedVersion, programs: Mapping[str, ProgramState]) -> list[int]:
        """Return the ports of a version on which other programs listen.

        A process that has listened before still does, so only young processes are checked.
        """
        folder = self.folder(served.model, served.version)
        never_ready = any((folder / name).exists() for name in ("starts", "fetching"))
        server, sidecar = programs[served.server_program], programs[served.sidecar_program]
        lost: list[int] = []
        if never_ready or _is_young(server):
            ports = (served.http, served.grpc, served.metrics)
            lost += [port for port in ports if is_taken_by_other(port, server.pid)]
        if _is_young(sidecar) and is_taken_by_other(served.sidecar, sidecar.pid):
            lost.append(served.sidecar)
        return lost

    def _move(self, served: ServedVersion, lost: Collection[int]) -> ServedVersion:
        """Return the version with other ports instead of ``lost``, and store it."""
        if not lost:
            return served
        with self._ports_lock() as taken:
            ports: list[int] = []
            for port in served.ports:
                ports.append(free_port(taken={*taken, *ports}) if port in lost else port)
            moved = served.with_ports(ports)
            write_struct(self.folder(served.model, served.version) / "version.json", moved)
        log.warning("%s: other programs have its ports %s; new ports %s", served.name, lost, ports)
        return moved

    def _create(self, model: str, version: int, digest: str) -> ServedVersion:
        folder = self.folder(model, version)
        (folder / "spool").mkdir(parents=True, exist_ok=True)
        with self._ports_lock() as taken:
            ports: list[int] = []
            for _ in range(4):
                ports.append(free_port(taken={*taken, *ports}))
            http, grpc, metrics, sidecar = ports
            served = ServedVersion(model, version, http, grpc, metrics, sidecar, digest=digest)
            write_struct(folder / "version.json", served)
        return served

    def _remove(self, served: ServedVersion) -> bool:
        folder = self.folder(served.model, served.version)
        write_struct(folder / "version.json", msgspec.structs.replace(served, retiring=True))
        ended = self.supervisor.end(served.server_program) and self.supervisor.end(
            served.sidecar_program
        )
        if not ended:
            return False
        if unshipped := _unshipped_bytes(folder / "spool"):
            log.error(
                "%s: %d bytes of records are not shipped; they remain in %s",
                served.name,
                unshipped,
                folder / "spool",
            )
            shutil.rmtree(folder / "model", ignore_errors=True)
            for name in ("starts", "fetching", "version.json"):
                (folder / name).unlink(missing_ok=True)
        else:
            removed = folder.with_name(f".{folder.name}")
            shutil.rmtree(removed, ignore_errors=True)
            folder.rename(removed)
            shutil.rmtree(removed)
        return True

    @contextlib.contextmanager
    def _ports_lock(self) -> Iterator[set[int]]:
        """Hold the lock for choosing ports; give the ports of all versions."""
        with locked(self.home.serving / ".ports.lock", PORTS_SECONDS) as acquired:
            if not acquired:
                raise PlatformError(
                    f"{self.home.serving}: another process has chosen ports for more than "
                    f"{PORTS_SECONDS:.0f} s; try again"
                )
            yield {port for served in self.all() for port in served.ports}

    @contextlib.contextmanager
    def _change_lock(self, model: str) -> Iterator[None]:
        """Hold the lock for changing versions of a model.

        It prevents that one process starts what another one retires. Each model has its own lock,
        so a server that drains for a long time delays no other model.
        """
        with locked(self._lock_file(model), CHANGE_SECONDS) as acquired:
            if not acquired:
                raise PlatformError(
                    f"{model}: another process has changed a version for more than "
                    f"{CHANGE_SECONDS:.0f} s; try again"
                )
            yield

    def _lock_file(self, model: str) -> Path:
        return self.home.serving / f".{model}.lock"


def _has_started(served: ServedVersion, programs: Mapping[str, ProgramState]) -> bool:
    return {served.server_program, served.sidecar_program} <= programs.keys()


def _is_young(state: ProgramState) -> bool:
    return not state.pid or time.time() - state.started < LISTENING_SECONDS


def _not_ready_reason(served: ServedVersion) -> str | None:
    try:
        status, _ = get(served.http, "/v2/health/ready", READY_SECONDS)
    except OSError as error:
        return f"port {served.http} does not answer yet ({error})"
    return None if status == HTTPStatus.OK else f"/v2/health/ready answers {status}"


def _unshipped_bytes(folder: Path) -> int:
    """Count the bytes of complete lines after the checkpoint. A torn line is not a record."""
    done = read_struct(folder / spool.CHECKPOINT, spool.Checkpoint) or spool.Checkpoint()
    unshipped = 0
    for number in spool.segments(folder):
        if number >= done.segment:
            with spool.segment_path(folder, number).open("rb") as file:
                file.seek(done.offset if number == done.segment else 0)
                unshipped += spool.written_part(file.read()).rfind(b"\n") + 1
    return unshipped
