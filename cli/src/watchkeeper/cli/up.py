"""Start the local system, or bring the running one to its configuration.

A process that runs as it is configured keeps running. A missing process is started. A process with
another configuration is restarted, and no other process is.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from watchkeeper.cli.local_programs import describe, mlflow_url
from watchkeeper.cli.local_settings import (
    GATEWAY_TOKEN,
    LocalConfiguration,
    LocalSettings,
    how_to_reset,
    make_secrets,
    read_configuration,
)
from watchkeeper.cli.services import Service, service_program, wait_until_ready
from watchkeeper.core.persisted import write_persisted
from watchkeeper.core.projects import write_metadata
from watchkeeper.ledger import migrate
from watchkeeper.platforms import Endpoints, Platform, PlatformError
from watchkeeper.platforms.local import LocalPlatform
from watchkeeper.platforms.local.api_keys import read_keys
from watchkeeper.platforms.local.gateway import Gateway
from watchkeeper.platforms.local.home import (
    Home,
    LocalConfig,
    Ports,
    locked,
    read_struct,
    sockets_folder,
    write_struct,
)
from watchkeeper.platforms.local.home_processes import terminate_processes
from watchkeeper.platforms.local.ports import HOST, free_port, is_free
from watchkeeper.platforms.local.supervisor import Supervisor

log = logging.getLogger(__name__)

LOCK_SECONDS = 120.0  # how long to wait for another ``up`` or ``down``
ORPHAN_SECONDS = 20.0
FIRST_SERVICES: tuple[Service, ...] = ("mlflow", "gateway")
ALL_SERVICES: tuple[Service, ...] = (*FIRST_SERVICES, "rollout")


def up(folder: Path, models: Sequence[str] = ()) -> Endpoints:
    """Start the system in ``folder`` and return its addresses.

    Models and settings that are not given are those of the last ``up``.

    Raises:
        SettingsError, InvalidNameError: a setting cannot be used; nothing has changed.
        PlatformError: a service did not become ready; the message names its log.
    """
    home = Home(folder)
    read_configuration(home.folder, tuple(models), os.environ)  # check before anything changes
    home.make()
    with locked(home.folder / ".up.lock", LOCK_SECONDS) as acquired:
        if not acquired:
            raise PlatformError(
                f"{home.folder}: another 'up' or 'down' is still at work; wait for its end"
            )
        # Read again: the other ``up`` may have stored settings.
        configuration = read_configuration(home.folder, tuple(models), os.environ)
        if configuration.persisted:
            names = ", ".join(configuration.persisted)
            how = how_to_reset(configuration.persisted)
            log.warning("settings of an earlier 'up' in force: %s; %s", names, how)
        write_persisted(home.folder, configuration.variables)
        return _up(home, configuration)


def _up(home: Home, configuration: LocalConfiguration) -> Endpoints:
    models, settings = configuration.models, configuration.settings
    before = read_struct(home.config_file, LocalConfig)
    running = before is not None and Supervisor(home, Path(before.sockets)).answers()
    if before is not None and running:
        sockets, ports = before.sockets, before.ports
        log.info("the system in %s is running already", home.folder)
    else:
        for process in terminate_processes(home.folder, ORPHAN_SECONDS):
            log.warning("ended a process that a crash has left behind: %s", process)
        sockets, ports = str(sockets_folder(home.folder)), _choose_ports(settings, before)
    make_secrets(home.secrets)

    def write_config(ports: Ports) -> LocalConfig:
        _write_projects(home, configuration)
        config = describe(home, sockets, ports, configuration)
        if config != read_struct(home.config_file, LocalConfig):
            write_struct(home.config_file, config)
        # The time of the configuration: runs that were refused are tried again.
        home.config_file.touch()
        token = (home.secrets / GATEWAY_TOKEN).read_text()
        gateway = Gateway(home.gateway, Path(sockets))
        gateway.declare(models, ports, read_keys(settings.api_keys), token)
        return config

    def apply(ports: Ports, services: Sequence[Service], *, versions: bool = True) -> None:
        config = write_config(ports)
        served = [each for each in platform.versions.all() if versions and each.model in models]
        changed = platform.supervisor.put(
            *(service_program(service, platform, config) for service in services),
            *(program for each in served for program in platform.versions.programs(each)),
        )
        for name in changed:
            log.info("started: %s", name)

    write_config(ports)
    platform = LocalPlatform(home.folder)
    if not running:
        # supervisord starts every program that it knows, so programs of the last time must go.
        platform.supervisor.forget(*platform.supervisor.program_names())
        platform.versions.replace_taken_ports()
        platform.supervisor.start()
    apply(ports, FIRST_SERVICES, versions=False)  # sidecars need the migrated ledger
    migrate(settings.ledger_url)
    apply(ports, FIRST_SERVICES)
    ports = wait_until_ready(
        FIRST_SERVICES, platform, ports, lambda ports: apply(ports, FIRST_SERVICES)
    )
    # MLflow creates its tables at its first request. Two first requests at once would collide, so
    # the rollout controller starts only now.
    apply(ports, ALL_SERVICES)
    for model in models:
        _reconcile(platform, model)
    ports = wait_until_ready(
        ALL_SERVICES, platform, ports, lambda ports: apply(ports, ALL_SERVICES)
    )
    endpoints = _endpoints(models, ports, settings)
    if read_struct(home.endpoints_file, Endpoints) != endpoints:
        write_struct(home.endpoints_file, endpoints)
    return endpoints


def _write_projects(home: Home, configuration: LocalConfiguration) -> None:
    """Make the models of projects known to training runs."""
    for project in configuration.projects:
        write_metadata(project, home.projects / project.name)


def _choose_ports(settings: LocalSettings, before: LocalConfig | None) -> Ports:
    """Choose each port: the one of the settings, or else the one of the last time, or any."""
    last = msgspec.to_builtins(before.ports) if before else {}
    wanted_ports = {
        "v2": settings.v2_port,
        "mlflow": settings.mlflow_port,
        "operations": settings.operations_port,
        "rollout": settings.rollout_port,
    }
    chosen: dict[str, int] = {}
    for name, wanted in wanted_ports.items():
        free = is_free(wanted) and wanted not in chosen.values()
        chosen[name] = free_port(wanted if free else last.get(name), chosen.values())
        if chosen[name] != wanted:
            log.warning("port %s of %s is in use; using %s", wanted, name, chosen[name])
    return Ports(**chosen)


def _reconcile(platform: Platform, model: str) -> None:
    """Start what belongs to a model, such as a training run that the last 'down' interrupted.

    An error is a warning: the other models must start, and the rollout controller tries again.
    """
    try:
        platform.reconcile(model)
    except PlatformError as error:
        log.warning("%s: the rollout controller will try again: %s", model, error)


def _endpoints(models: Sequence[str], ports: Ports, settings: LocalSettings) -> Endpoints:
    return Endpoints(
        v2=f"http://{HOST}:{ports.v2}",
        mlflow=mlflow_url(ports),
        drift=f"http://{HOST}:{ports.operations}/drift",
        metrics=f"http://{HOST}:{ports.operations}/metrics",
        ledger=settings.ledger_url,
        hosts={model: model for model in models},
    )
