"""Stop the local system: the users of a service before the service."""

import logging
import shutil
from pathlib import Path

from watchkeeper.platforms import PlatformError
from watchkeeper.platforms.local.home import Home, LocalConfig, locked, read_struct
from watchkeeper.platforms.local.home_processes import terminate_processes
from watchkeeper.platforms.local.supervisor import Supervisor

log = logging.getLogger(__name__)

LOCK_SECONDS = 120.0  # how long to wait for another ``up`` or ``down``
ORPHAN_SECONDS = 20.0
# Prefixes of process names. Servers stop before their sidecars, so that the sidecars ship the last
# records.
STOP_ORDER = (("rollout", "run."), ("server.",), ("sidecar.",), ("gateway",), ("mlflow",))


def down(folder: Path) -> None:
    """Stop every process of the system in ``folder``; its data stays.

    Does nothing if no process runs. Also ends processes that run without supervisord.

    Raises:
        PlatformError: a process does not end, even after SIGKILL, or another ``up`` or ``down`` is
            at work.
    """
    home = Home(folder)
    if not home.folder.exists():
        return
    with locked(home.folder / ".up.lock", LOCK_SECONDS) as acquired:
        if not acquired:
            raise PlatformError(
                f"{home.folder}: another 'up' or 'down' is still at work; wait for its end"
            )
        config = read_struct(home.config_file, LocalConfig)
        if config is not None:
            _stop_in_order(Supervisor(home, Path(config.sockets)))
        for process in terminate_processes(home.folder, ORPHAN_SECONDS):
            log.warning("ended a process that ran without supervision: %s", process)
        home.endpoints_file.unlink(missing_ok=True)
        if config is not None:
            shutil.rmtree(config.sockets, ignore_errors=True)


def _stop_in_order(supervisor: Supervisor) -> None:
    if not supervisor.answers():
        return
    for prefixes in STOP_ORDER:
        names = [name for name in supervisor.states() if name.startswith(prefixes)]
        try:
            supervisor.stop(names)
        except PlatformError as error:
            log.warning("%s; continuing with the next processes", error)
    supervisor.shut_down()
