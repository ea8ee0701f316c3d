"""Start the local system, or go on with the one that runs.

What runs and is described as before is left alone; what is missing is started; what is described
differently is restarted, and nothing else.
"""

import logging
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path

import msgspec

from watchkeeper.cli.local_programs import describe, mlflow_program, mlflow_url, rollout_program
from watchkeeper.cli.local_settings import LocalSettings, make_secrets, read_local_settings
from watchkeeper.contracts.names import run_name
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.ledger.episodes import Attempt, save_attempt
from watchkeeper.platforms import Endpoints, PlatformError, Run
from watchkeeper.platforms.local import LocalPlatform
from watchkeeper.platforms.local.asking import get
from watchkeeper.platforms.local.clients import read_keys
from watchkeeper.platforms.local.gateway import gateway_program
from watchkeeper.platforms.local.home import (
    Home,
    Installation,
    Ports,
    last_line,
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
READY_SECONDS = 90.0
ORPHAN_SECONDS = 20.0
POLL_SECONDS = 0.05
HOPELESS_STARTS = 4


def up(folder: Path, models: Sequence[str]) -> Endpoints:
    """Bring the system in ``folder`` up for ``models`` and return where things are.

    Raises:
        SettingsError, InvalidNameError: a setting cannot work; nothing was touched.
        PlatformError: a part did not come up; the message names its log.
    """
    home = Home(folder)
    settings = read_local_settings(home.folder, tuple(models))
    home.make()
    with locked(home.folder / ".up.lock", OTHERS_SECONDS) as mine:
        if not mine:
            raise PlatformError(f"{home.folder}: another 'up' or 'down' is still at work here")
        return _up(home, tuple(models), settings)


def _up(home: Home, models: tuple[str, ...], settings: LocalSettings) -> Endpoints:
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
    installation = describe(home, sockets, models, ports, settings)
    if installation != before:
        write_struct(home.installation_file, installation)
    platform = LocalPlatform(home.folder)
    supervisor = platform.supervisor
    platform.gateway.declare(models, ports, read_keys(settings.api_keys))
    first = [mlflow_program(installation), gateway_program(installation, home.gateway)]
    if running:
        _tell(supervisor.put(*first))
    else:
        # The rest follows when the ledger is ready; until then its files must not start it.
        supervisor.forget(*supervisor.known())
        platform.pods.settle()
        for program in first:
            supervisor.write(program)
        supervisor.start()
    migrate(settings.ledger_url)
    ours = [pod for pod in platform.pods.all() if pod.model in models]
    _tell(supervisor.put(*(program for pod in ours for program in platform.pods.programs(pod))))
    ready: dict[str, Callable[[], bool]] = {
        "mlflow": lambda: _registry_answers(ports),
        "gateway": platform.gateway.ready,
    }
    _wait(supervisor, ready)
    # Only now: MLflow makes its tables at the first request, and two at once would collide.
    _tell(supervisor.put(rollout_program(installation)))
    # And only now what serves models that are not named any more: nobody starts it again.
    others = [pod for pod in platform.pods.all() if pod.model not in models]
    supervisor.remove(*(pod.server for pod in others))
    supervisor.remove(*(pod.shipper for pod in others))
    for model in models:
        _first_run(platform, model, settings.ledger_url, ports)
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


def _registry_answers(ports: Ports) -> bool:
    """Ask for something that needs MLflow's database, which is made by the first who asks."""
    path = "/api/2.0/mlflow/registered-models/search?max_results=1"
    try:
        return get(ports.mlflow, path, timeout=30.0)[0] == HTTPStatus.OK
    except OSError:
        return False


def _wait(supervisor: Supervisor, ready: dict[str, Callable[[], bool]]) -> None:
    """Wait until all parts are ready, but not for one that ends again and again."""
    deadline = time.monotonic() + READY_SECONDS
    starts: dict[str, set[int]] = {name: set() for name in ready}
    waiting = dict(ready)
    while waiting:
        waiting = {name: is_ready for name, is_ready in waiting.items() if not is_ready()}
        states = supervisor.states()
        for name in waiting:
            starts[name].add(states[name].started)
            late = time.monotonic() > deadline
            if late or len(starts[name]) >= HOPELESS_STARTS:
                why = f"is not ready after {READY_SECONDS:g} s" if late else "ends again and again"
                file = supervisor.home.log(name)
                raise PlatformError(f"{name} {why}: {last_line(file)} (see {file})")
        time.sleep(POLL_SECONDS)


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


def _tell(changed: Sequence[str]) -> None:
    for name in changed:
        log.info("started: %s", name)
