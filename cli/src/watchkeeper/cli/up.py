"""Start the local system, or go on with the one that runs.

What runs and is described as before is left alone; what is missing is started; what is described
differently is restarted, and nothing else.
"""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from watchkeeper.cli.local_programs import describe, mlflow_url
from watchkeeper.cli.local_settings import (
    Given,
    LocalSettings,
    how_to_drop,
    make_secrets,
    read_given,
)
from watchkeeper.cli.parts import program, wait
from watchkeeper.contracts.kept import keep
from watchkeeper.contracts.names import run_name
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.ledger.episodes import Attempt, save_attempt
from watchkeeper.platforms import Endpoints, PlatformError, Run
from watchkeeper.platforms.local import LocalPlatform
from watchkeeper.platforms.local.clients import read_keys
from watchkeeper.platforms.local.gateway import Gateway
from watchkeeper.platforms.local.home import (
    Home,
    Installation,
    Ports,
    locked,
    read_struct,
    sockets_folder,
    write_struct,
)
from watchkeeper.platforms.local.orphans import end_marked
from watchkeeper.platforms.local.ports import HOST, free_port, is_free
from watchkeeper.platforms.local.supervisor import Supervisor
from watchkeeper.registry import Registry

log = logging.getLogger(__name__)

OTHERS_SECONDS = 120.0  # another ``up`` or ``down`` may be at work
ORPHAN_SECONDS = 20.0
FIRST = ("mlflow", "gateway")
ALL = (*FIRST, "rollout")


def up(folder: Path, models: Sequence[str] = ()) -> Endpoints:
    """Bring the system in ``folder`` up and return where things are.

    Models and settings that are not given are those of the last time.

    Raises:
        SettingsError, InvalidNameError: a setting cannot work; nothing was touched.
        PlatformError: a part did not come up; the message names its log.
    """
    home = Home(folder)
    read_given(home.folder, tuple(models), os.environ)
    home.make()
    with locked(home.folder / ".up.lock", OTHERS_SECONDS) as mine:
        if not mine:
            raise PlatformError(f"{home.folder}: another 'up' or 'down' is still at work here")
        given = read_given(home.folder, tuple(models), os.environ)  # as the other one left it
        if given.kept:
            told = ", ".join(given.kept)
            log.warning("as in an earlier 'up': %s; %s", told, how_to_drop(given.kept))
        keep(home.folder, given.variables)
        return _up(home, given)


def _up(home: Home, given: Given) -> Endpoints:
    models, settings = given.models, given.settings
    before = read_struct(home.installation_file, Installation)
    running = before is not None and Supervisor(home, Path(before.sockets)).answers()
    if before is not None and running:
        sockets, ports = before.sockets, before.ports
        log.info("a system is running in %s: adopted", home.folder)
    else:
        for process in end_marked(home.folder, ORPHAN_SECONDS):
            log.warning("left behind by a crash, ended: %s", process)
        sockets, ports = str(sockets_folder(home.folder)), _ports(settings, before)
    make_secrets(home.secrets)

    def place(ports: Ports) -> Installation:
        installation = describe(home, sockets, ports, given)
        if installation != read_struct(home.installation_file, Installation):
            write_struct(home.installation_file, installation)
        Gateway(home.gateway, Path(sockets)).declare(models, ports, read_keys(settings.api_keys))
        return installation

    def put(ports: Ports, parts: Sequence[str], *, serving: bool = True) -> None:
        installation = place(ports)
        pods = [pod for pod in platform.pods.all() if serving and pod.model in models]
        changed = platform.supervisor.put(
            *(program(part, platform, installation) for part in parts),
            *(each for pod in pods for each in platform.pods.programs(pod)),
        )
        for name in changed:
            log.info("started: %s", name)

    place(ports)
    platform = LocalPlatform(home.folder)
    if not running:
        # What runs follows from here on; files of the past must not start anything.
        platform.supervisor.forget(*platform.supervisor.known())
        platform.pods.settle()
        platform.supervisor.start()
    put(ports, FIRST, serving=False)  # the rest follows when the ledger is ready
    migrate(settings.ledger_url)
    put(ports, FIRST)
    ports = wait(FIRST, platform, ports, lambda ports: put(ports, FIRST))
    # Only now: MLflow makes its tables at the first request, and two at once would collide.
    put(ports, ALL)
    # And only now what serves models that are not named any more: nobody starts it again.
    others = [pod for pod in platform.pods.all() if pod.model not in models]
    platform.supervisor.remove(*(pod.server for pod in others))
    platform.supervisor.remove(*(pod.shipper for pod in others))
    for model in models:
        _first_run(platform, model, settings.ledger_url, ports)
    ports = wait(ALL, platform, ports, lambda ports: put(ports, ALL))
    endpoints = _endpoints(models, ports, settings)
    if read_struct(home.endpoints_file, Endpoints) != endpoints:
        write_struct(home.endpoints_file, endpoints)
    return endpoints


def _ports(settings: LocalSettings, before: Installation | None) -> Ports:
    """Find ports: those that are wished for, or else those that were taken last time, or any."""
    last = msgspec.to_builtins(before.ports) if before else {}
    wishes = {
        "v2": settings.v2_port,
        "mlflow": settings.mlflow_port,
        "operations": settings.operations_port,
        "rollout": settings.rollout_port,
    }
    found: dict[str, int] = {}
    for name, wish in wishes.items():
        wanted = wish if is_free(wish) and wish not in found.values() else last.get(name)
        found[name] = free_port(wanted, found.values())
        if found[name] != wish:
            log.warning("port %s for %s is in use: taking %s", wish, name, found[name])
    return Ports(**found)


def _first_run(platform: LocalPlatform, model: str, ledger_url: str, ports: Ports) -> None:
    """Have a model trained that has neither a version nor a run."""
    if platform.runs(model) or Registry(mlflow_url(ports)).versions(model):
        return
    run = Run(run_name(model, 0, 1), model, trigger="first version")
    ledger = Ledger(ledger_url)
    try:
        save_attempt(ledger, Attempt(run.name, None, model, run.trigger, time.time()))
    finally:
        ledger.close()
    if platform.create_run(run):
        log.info("%s has no version yet: training run %s", model, run.name)


def _endpoints(models: Sequence[str], ports: Ports, settings: LocalSettings) -> Endpoints:
    return Endpoints(
        v2=f"http://{HOST}:{ports.v2}",
        mlflow=mlflow_url(ports),
        drift=f"http://{HOST}:{ports.operations}/drift",
        metrics=f"http://{HOST}:{ports.operations}/metrics",
        ledger=settings.ledger_url,
        hosts={model: model for model in models},
    )
