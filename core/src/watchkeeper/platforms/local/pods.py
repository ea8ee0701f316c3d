"""Pods: what serves one version here, a server and its sidecar with a folder between them.

serving/<model>-v<version>/
    pod.json    the ports, kept over restarts
    model/      the version's files, put there by ``initialize``
    spool/      written by the server, shipped by the sidecar
    fetching    there while the version's files are fetched from the registry
    starts      a character for each start of the server since it was last seen ready
"""

import contextlib
import logging
import shlex
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path

import msgspec

from watchkeeper.contracts import spool
from watchkeeper.contracts.names import model_uri, serving_name
from watchkeeper.contracts.version import UNREACHABLE
from watchkeeper.platforms.interface import PlatformError, Serving
from watchkeeper.platforms.local.asking import get
from watchkeeper.platforms.local.clusters import Endpoint
from watchkeeper.platforms.local.home import (
    Home,
    Installation,
    last_line,
    locked,
    read_struct,
    write_struct,
)
from watchkeeper.platforms.local.ports import HOST, free_port, is_free, is_lost
from watchkeeper.platforms.local.program import Program, run_in_turn
from watchkeeper.platforms.local.supervisor import State, Supervisor

log = logging.getLogger(__name__)

READY_SECONDS = 2.0
DRAIN_SECONDS = 30
SHIP_SECONDS = 30
SLACK_SECONDS = 10  # between the end of the sidecar's last try and its kill
CHANGE_SECONDS = 100.0
PLACE_SECONDS = 5.0
SETTLED_SECONDS = 60.0  # by then a sidecar listens, or has ended
FAILED_AFTER = 4  # starts without having been ready once

# Only what is a version's own doing counts as a start: a registry that is away is none.
START = """touch {folder}/fetching
status=0
{initialize} || status=$?
if [ $status -eq {unreachable} ]; then exit $status; fi
rm -f {folder}/fetching
printf . >> {folder}/starts
if [ $status -ne 0 ]; then exit $status; fi
exec {server}"""


class Pod(msgspec.Struct, frozen=True):
    """The ports of one version's processes. ``retiring``: on its way out, never start it again."""

    model: str
    version: int
    http: int
    grpc: int
    metrics: int
    sidecar: int
    retiring: bool = False

    @property
    def name(self) -> str:
        """The pod's name, also its folder's."""
        return serving_name(self.model, self.version)

    @property
    def server(self) -> str:
        """The name of the server's program."""
        return f"server.{self.name}"

    @property
    def shipper(self) -> str:
        """The name of the sidecar's program."""
        return f"sidecar.{self.name}"

    def endpoint(self, port: int, weight: int = 1) -> Endpoint:
        """Describe one of its ports to the gateway."""
        return Endpoint(self.version, port, weight, self.http)


class Pods:
    """All pods of a home."""

    def __init__(self, home: Home, supervisor: Supervisor) -> None:
        self.home = home
        self.supervisor = supervisor

    def folder(self, model: str, version: int) -> Path:
        """Where a version's files lie."""
        return self.home.serving / serving_name(model, version)

    def find(self, model: str, version: int) -> Pod | None:
        """Return the pod of a version, None if it was never asked for or is gone."""
        return read_struct(self.folder(model, version) / "pod.json", Pod)

    def all(self) -> list[Pod]:
        """Return all pods, by version; hidden folders are what a stop left of retired ones."""
        found = (read_struct(p, Pod) for p in self.home.serving.glob("[!.]*/pod.json"))
        return sorted((pod for pod in found if pod), key=lambda pod: (pod.model, pod.version))

    def add(self, model: str, version: int) -> None:
        """Have a version served; one that is retiring comes back when it is gone: ask again."""
        with self._changing(model):
            pod = self.find(model, version)
            if pod is not None and pod.retiring:
                if not self._end(pod):
                    return
                pod = None
            if pod is None:
                pod = self._place(model, version)
            self.supervisor.put(*self.programs(pod))

    def settle(self) -> None:
        """Write the programs of all pods anew, giving those whose ports are taken other ports.

        For the time before supervisord runs: nothing of ours is using a port then.
        """
        for pod in self.all():
            self._move(pod, [port for port in _ports(pod) if not is_free(port)])

    def programs(self, pod: Pod) -> list[Program]:
        """Describe the processes of a pod that should run now."""
        installation = self.home.read_installation()
        return (
            []
            if pod.retiring
            else [self._server(pod, installation), self._sidecar(pod, installation)]
        )

    def state(self, pod: Pod) -> Serving:
        """Tell how a pod does, and have it started if that was cut off."""
        if pod.retiring:
            return Serving(pod.version, "retiring", "it is on its way out")
        known = self.supervisor.states()
        if not {pod.server, pod.shipper} <= known.keys():
            self._start(pod)
            return Serving(pod.version, "starting", "its processes are being started")
        why = _not_ready(pod)
        if lost := self._lost(pod, known):  # asked last: whoever answered may be a stranger
            self._start(pod, lost)
            return Serving(pod.version, "starting", f"other programs have its ports {lost}")
        if why is not None:
            return self._unready(pod, why)
        (self.folder(pod.model, pod.version) / "starts").unlink(missing_ok=True)
        return Serving(pod.version, "ready")

    def _unready(self, pod: Pod, why: str) -> Serving:
        folder, log_file = self.folder(pod.model, pod.version), self.home.log(pod.server)
        starts = folder / "starts"
        count = len(starts.read_bytes()) if starts.exists() else 0
        if count >= FAILED_AFTER:
            said = f"{last_line(log_file)} (see {log_file})"
            return Serving(pod.version, "failed", f"started {count} times and never ready: {said}")
        if (folder / "fetching").exists():
            why = last_line(log_file) or "they are being fetched"
            return Serving(pod.version, "waiting", f"for its files: {why}")
        return Serving(pod.version, "starting", why)

    def retire(self, pod: Pod) -> bool:
        """Take the next step of stopping a pod, server before sidecar; True when it is gone.

        Its folder goes with it if all of its records are shipped.
        """
        with self._changing(pod.model):
            return self._end(pod)

    def _start(self, pod: Pod, lost: Collection[int] = ()) -> None:
        """Have a pod's processes run, on other ports for those that it lost.

        Nothing happens while somebody else is changing it.
        """
        with locked(self._lock(pod.model), 0) as mine:
            if mine and self.find(pod.model, pod.version) == pod:
                self.supervisor.put(*self.programs(self._move(pod, lost)))
                if lost:  # which is no fault of the version
                    (self.folder(pod.model, pod.version) / "starts").unlink(missing_ok=True)

    def _lost(self, pod: Pod, known: Mapping[str, State]) -> list[int]:
        """Return the ports of a pod on which others listen.

        Only processes that may not listen yet are asked about: what goes on listens.
        """
        folder = self.folder(pod.model, pod.version)
        unseen = any((folder / name).exists() for name in ("starts", "fetching"))
        server, shipper = known[pod.server], known[pod.shipper]
        lost: list[int] = []
        if unseen or _is_new(server):
            lost += [p for p in (pod.http, pod.grpc, pod.metrics) if is_lost(p, server.pid)]
        if _is_new(shipper) and is_lost(pod.sidecar, shipper.pid):
            lost.append(pod.sidecar)
        return lost

    def _move(self, pod: Pod, lost: Collection[int]) -> Pod:
        """Give a pod other ports for those that it lost."""
        if not lost:
            return pod
        with self._placing() as taken:
            ports: list[int] = []
            for port in _ports(pod):
                ports.append(free_port(taken={*taken, *ports}) if port in lost else port)
            moved = _pod(pod.model, pod.version, ports, retiring=pod.retiring)
            write_struct(self.folder(pod.model, pod.version) / "pod.json", moved)
        log.warning("%s: other programs have its ports %s; now on %s", pod.name, lost, ports)
        return moved

    def _end(self, pod: Pod) -> bool:
        folder = self.folder(pod.model, pod.version)
        write_struct(folder / "pod.json", msgspec.structs.replace(pod, retiring=True))
        if not (self.supervisor.end(pod.server) and self.supervisor.end(pod.shipper)):
            return False
        if unshipped := _unshipped_bytes(folder / "spool"):
            log.error(
                "%s: %d bytes of records not shipped, kept in %s",
                pod.name,
                unshipped,
                folder / "spool",
            )
            shutil.rmtree(folder / "model", ignore_errors=True)
            for name in ("starts", "fetching"):
                (folder / name).unlink(missing_ok=True)
            (folder / "pod.json").unlink()
        else:
            gone = folder.with_name(f".{folder.name}")
            shutil.rmtree(gone, ignore_errors=True)
            folder.rename(gone)
            shutil.rmtree(gone)
        return True

    def _place(self, model: str, version: int) -> Pod:
        folder = self.folder(model, version)
        (folder / "spool").mkdir(parents=True, exist_ok=True)
        with self._placing() as taken:
            ports: list[int] = []
            for _ in range(4):
                ports.append(free_port(taken=taken | set(ports)))
            pod = _pod(model, version, ports)
            write_struct(folder / "pod.json", pod)
        return pod

    @contextlib.contextmanager
    def _placing(self) -> Iterator[set[int]]:
        """Take ports, of which none is shared; gives those that all pods have."""
        with locked(self.home.serving / ".ports.lock", PLACE_SECONDS) as mine:
            if not mine:
                raise PlatformError(f"{self.home.serving}: another process is still taking ports")
            yield {port for other in self.all() for port in _ports(other)}

    def _lock(self, model: str) -> Path:
        return self.home.serving / f".{model}.lock"

    @contextlib.contextmanager
    def _changing(self, model: str) -> Iterator[None]:
        """Change one pod of a model at a time: nobody starts what another is retiring. A server
        that takes its time to drain keeps no other model waiting.
        """
        with locked(self._lock(model), CHANGE_SECONDS) as mine:
            if not mine:
                raise PlatformError(f"{model}: another process is still changing a pod of it")
            yield

    def _server(self, pod: Pod, installation: Installation) -> Program:
        role, initialize = installation.role("server"), installation.role("initialize")
        folder = self.folder(pod.model, pod.version)
        uri = model_uri(pod.model, pod.version)
        body = START.format(
            folder=shlex.quote(str(folder)),
            initialize=shlex.join([*initialize.command, uri, str(folder / "model")]),
            unreachable=UNREACHABLE,
            server=shlex.join(role.command),
        )
        return Program(
            name=pod.server,
            body=body,
            environment={
                **initialize.environment,
                **role.environment,
                **_identity(pod, folder),
                "WATCHKEEPER_HOST": HOST,
                "WATCHKEEPER_HTTP_PORT": str(pod.http),
                "WATCHKEEPER_GRPC_PORT": str(pod.grpc),
                "WATCHKEEPER_METRICS_PORT": str(pod.metrics),
            },
            stop_seconds=DRAIN_SECONDS,
        )

    def _sidecar(self, pod: Pod, installation: Installation) -> Program:
        role = installation.role("sidecar")
        return Program(
            name=pod.shipper,
            body=run_in_turn(role.command),
            environment={
                **role.environment,
                **_identity(pod, self.folder(pod.model, pod.version)),
                "WATCHKEEPER_HOST": HOST,
                "WATCHKEEPER_PORT": str(pod.sidecar),
                "WATCHKEEPER_DRAIN_SECONDS": str(SHIP_SECONDS - SLACK_SECONDS),
            },
            stop_seconds=SHIP_SECONDS,
        )


def _is_new(state: State) -> bool:
    return not state.pid or time.time() - state.started < SETTLED_SECONDS


def _not_ready(pod: Pod) -> str | None:
    try:
        status, _ = get(pod.http, "/v2/health/ready", READY_SECONDS)
    except OSError as error:
        return f"port {pod.http} does not answer yet ({error})"
    return None if status == HTTPStatus.OK else f"/v2/health/ready answers {status}"


def _identity(pod: Pod, folder: Path) -> dict[str, str]:
    return {
        "WATCHKEEPER_MODEL": pod.model,
        "WATCHKEEPER_VERSION": str(pod.version),
        "WATCHKEEPER_MODEL_FOLDER": str(folder / "model"),
        "WATCHKEEPER_SPOOL": str(folder / "spool"),
    }


def _pod(model: str, version: int, ports: Sequence[int], retiring: bool = False) -> Pod:
    http, grpc, metrics, sidecar = ports
    return Pod(model, version, http, grpc, metrics, sidecar, retiring)


def _ports(pod: Pod) -> Iterator[int]:
    yield from (pod.http, pod.grpc, pod.metrics, pod.sidecar)


def _unshipped_bytes(folder: Path) -> int:
    """Count the bytes of whole lines after the checkpoint; a torn one was never a record."""
    done = read_struct(folder / spool.CHECKPOINT, spool.Checkpoint) or spool.Checkpoint()
    unshipped = 0
    for number in spool.segments(folder):
        if number >= done.segment:
            with spool.segment_path(folder, number).open("rb") as file:
                file.seek(done.offset if number == done.segment else 0)
                unshipped += spool.written(file.read()).rfind(b"\n") + 1
    return unshipped
