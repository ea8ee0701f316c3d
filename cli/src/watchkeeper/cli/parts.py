"""The parts that ``up`` itself starts, on ports that others may take before they listen.

A part is ready only once its own process holds its ports: two systems that start at the same time
can choose the same ones, and then another one's registry answers. Whoever comes second moves.
"""

import logging
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

import msgspec

from watchkeeper.cli.local_programs import mlflow_program, rollout_program
from watchkeeper.platforms import PlatformError
from watchkeeper.platforms.local import LocalPlatform
from watchkeeper.platforms.local.asking import get
from watchkeeper.platforms.local.gateway import gateway_program
from watchkeeper.platforms.local.home import Installation, Ports, last_line
from watchkeeper.platforms.local.ports import free_port, is_lost, ports_of
from watchkeeper.platforms.local.program import Program
from watchkeeper.platforms.local.supervisor import State

log = logging.getLogger(__name__)

READY_SECONDS: Final = 90.0
POLL_SECONDS: Final = 0.05
HOPELESS_STARTS: Final = 4
# The ports of each part, by their names in ``Ports``.
PARTS: Final = {"mlflow": ("mlflow",), "gateway": ("v2", "operations"), "rollout": ("rollout",)}


def program(part: str, platform: LocalPlatform, installation: Installation) -> Program:
    """Describe the process of a part."""
    if part == "mlflow":
        return mlflow_program(installation)
    if part == "gateway":
        return gateway_program(installation, platform.home.gateway)
    return rollout_program(installation)


def wait(
    parts: Sequence[str], platform: LocalPlatform, ports: Ports, move: Callable[[Ports], None]
) -> Ports:
    """Wait until all ``parts`` are ready; return their ports.

    ``move`` has everything run on other ports, when some were lost. Nobody waits for a part that
    ends again and again.

    Raises:
        PlatformError: a part did not become ready; names its log.
    """
    deadline = time.monotonic() + READY_SECONDS
    starts: dict[str, set[int]] = {part: set() for part in parts}
    while True:
        states = platform.supervisor.states()
        waiting = [part for part in parts if not _is_ready(part, platform, ports, states[part])]
        if not waiting:
            return ports
        if lost := [name for part in waiting for name in _lost(part, ports, states[part])]:
            ports = _moved(ports, lost)
            move(ports)
            starts = {part: set() for part in parts}
            continue
        for part in waiting:
            starts[part].add(states[part].started)
            late = time.monotonic() > deadline
            if late or len(starts[part]) >= HOPELESS_STARTS:
                why = f"is not ready after {READY_SECONDS:g} s" if late else "ends again and again"
                file = platform.home.log(part)
                raise PlatformError(f"{part} {why}: {last_line(file)} (see {file})")
        time.sleep(POLL_SECONDS)


def _is_ready(part: str, platform: LocalPlatform, ports: Ports, state: State) -> bool:
    held = ports_of(state.pid) if state.pid else set()
    if not {getattr(ports, name) for name in PARTS[part]} <= held:
        return False
    if part == "mlflow":
        return _registry_answers(ports)
    return part != "gateway" or platform.gateway.ready()


def _registry_answers(ports: Ports) -> bool:
    """Ask for something that needs MLflow's database, which is made by the first who asks."""
    path = "/api/2.0/mlflow/registered-models/search?max_results=1"
    try:
        return get(ports.mlflow, path, timeout=30.0)[0] == HTTPStatus.OK
    except OSError:
        return False


def _lost(part: str, ports: Ports, state: State) -> list[str]:
    return [name for name in PARTS[part] if is_lost(getattr(ports, name), state.pid)]


def _moved(ports: Ports, lost: Sequence[str]) -> Ports:
    taken: set[int] = set(msgspec.structs.astuple(ports))
    for name in lost:
        before, now = getattr(ports, name), free_port(taken=taken)
        log.warning("port %s for %s was taken by another program: taking %s", before, name, now)
        ports = msgspec.structs.replace(ports, **{name: now})
        taken.add(now)
    return ports
