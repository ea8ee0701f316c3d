"""The services that ``up`` starts itself: MLflow, the gateway and the rollout controller.

Another program can take a chosen port before the service listens on it. A service is therefore
ready only when its own process holds its ports. Otherwise ``up`` could mistake another system's
registry for its own. A service that loses a port moves to another one.
"""

import logging
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Final, Literal

import msgspec

from watchkeeper.cli.local_programs import mlflow_program, rollout_program
from watchkeeper.platforms import PlatformError
from watchkeeper.platforms.local import LocalPlatform
from watchkeeper.platforms.local.gateway import gateway_program
from watchkeeper.platforms.local.home import LocalConfig, Ports, last_line
from watchkeeper.platforms.local.http_probe import get
from watchkeeper.platforms.local.ports import free_port, is_taken_by_other, ports_of
from watchkeeper.platforms.local.program import Program
from watchkeeper.platforms.local.supervisor import ProgramState

log = logging.getLogger(__name__)

Service = Literal["mlflow", "gateway", "rollout"]

IDLE_SECONDS: Final = 180.0  # without a new line in the log; a busy machine needs half of it
LIMIT_SECONDS: Final = 600.0  # a service that writes logs, but does not become ready, is broken
POLL_SECONDS: Final = 0.05
MAX_STARTS: Final = 4  # a service that has been started so often is broken
# The ports of each service, by their names in ``Ports``.
SERVICE_PORTS: Final[dict[Service, tuple[str, ...]]] = {
    "mlflow": ("mlflow",),
    "gateway": ("v2", "operations"),
    "rollout": ("rollout",),
}


def service_program(service: Service, platform: LocalPlatform, config: LocalConfig) -> Program:
    """Return the program of a service."""
    if service == "mlflow":
        return mlflow_program(config)
    if service == "gateway":
        return gateway_program(config, platform.home.gateway)
    return rollout_program(config)


def wait_until_ready(
    services: Sequence[Service],
    platform: LocalPlatform,
    ports: Ports,
    restart: Callable[[Ports], None],
) -> Ports:
    """Wait until all ``services`` are ready.

    A service may be slow: it has time as long as its process runs and its log grows, up to a limit.

    Args:
        services: the services to wait for.
        platform: the platform that runs them.
        ports: their ports.
        restart: restarts the system on other ports; called when a port is lost.

    Returns:
        The ports on which they are ready.

    Raises:
        PlatformError: a service makes no progress or reaches the limit, or ends again and again.
    """
    begin = time.monotonic()
    progress: dict[Service, _Progress] = {}
    starts: dict[Service, set[int]] = {service: set() for service in services}
    while True:
        states = platform.supervisor.states()
        waiting = [s for s in services if not _is_ready(s, platform, ports, states[s])]
        if not waiting:
            return ports
        if lost := [name for s in waiting for name in _lost_ports(s, ports, states[s])]:
            ports = _replace_ports(ports, lost)
            restart(ports)
            starts = {service: set() for service in services}
            continue
        now = time.monotonic()
        progress = {
            service: _observe(
                progress.get(service), states[service], platform.home.log(service), now
            )
            for service in waiting
        }
        for service in waiting:
            starts[service].add(states[service].started)
            why = ""
            if len(starts[service]) >= MAX_STARTS:
                why = "ends again and again"
            elif now - begin > LIMIT_SECONDS:
                why = f"is not ready after {LIMIT_SECONDS:g} s"
            elif now - progress[service].changed > IDLE_SECONDS:
                why = f"is not ready and has logged nothing for {IDLE_SECONDS:g} s"
            if why:
                file = platform.home.log(service)
                raise PlatformError(f"{service} {why}: {last_line(file)} (see {file})")
        time.sleep(POLL_SECONDS)


class _Progress(msgspec.Struct, frozen=True):
    """The last start of a service, the size of its log, and when one of them has changed."""

    started: int
    log_size: int
    changed: float


def _observe(before: _Progress | None, state: ProgramState, log: Path, now: float) -> _Progress:
    """Return the progress of a service at ``now``; one without a process makes none."""
    if before is not None and not state.pid:
        return before
    size = log.stat().st_size if log.exists() else 0
    if before is not None and (before.started, before.log_size) == (state.started, size):
        return before
    return _Progress(state.started, size, now)


def _is_ready(service: Service, platform: LocalPlatform, ports: Ports, state: ProgramState) -> bool:
    held = ports_of(state.pid) if state.pid else set()
    if not {getattr(ports, name) for name in SERVICE_PORTS[service]} <= held:
        return False
    if service == "mlflow":
        return _registry_answers(ports)
    return service != "gateway" or platform.gateway.ready()


def _registry_answers(ports: Ports) -> bool:
    """Send a request that needs MLflow's database; the first such request creates its tables."""
    path = "/api/2.0/mlflow/registered-models/search?max_results=1"
    try:
        return get(ports.mlflow, path, timeout=30.0)[0] == HTTPStatus.OK
    except OSError:
        return False


def _lost_ports(service: Service, ports: Ports, state: ProgramState) -> list[str]:
    return [
        name
        for name in SERVICE_PORTS[service]
        if is_taken_by_other(getattr(ports, name), state.pid)
    ]


def _replace_ports(ports: Ports, lost: Sequence[str]) -> Ports:
    taken: set[int] = set(msgspec.structs.astuple(ports))
    for name in lost:
        before, now = getattr(ports, name), free_port(taken=taken)
        log.warning("port %s of %s is taken by another program; using %s", before, name, now)
        ports = msgspec.structs.replace(ports, **{name: now})
        taken.add(now)
    return ports
