"""Stop the local system: whoever uses something before what it uses."""

import logging
import shutil
from pathlib import Path

from watchkeeper.platforms import PlatformError
from watchkeeper.platforms.local.home import Home, Installation, locked, read_struct
from watchkeeper.platforms.local.orphans import end_marked
from watchkeeper.platforms.local.supervisor import Supervisor

log = logging.getLogger(__name__)

OTHERS_SECONDS = 120.0
ORPHAN_SECONDS = 20.0
# By the beginnings of their names. Servers before sidecars, so that the tail is shipped.
PHASES = (("rollout", "run."), ("server.",), ("sidecar.",), ("gateway",), ("mlflow",))


def down(folder: Path) -> None:
    """Stop everything that belongs to the system in ``folder``; its data stays.

    Harmless when nothing runs, and works without supervisord, too.

    Raises:
        PlatformError: something does not end, even when killed.
    """
    home = Home(folder)
    if not home.folder.exists():
        return
    with locked(home.folder / ".up.lock", OTHERS_SECONDS) as mine:
        if not mine:
            raise PlatformError(f"{home.folder}: another 'up' or 'down' is still at work here")
        installation = read_struct(home.installation_file, Installation)
        if installation is not None:
            _stop_in_order(Supervisor(home, Path(installation.sockets)))
        for process in end_marked(home.folder, ORPHAN_SECONDS):
            log.warning("was still running without supervision, ended: %s", process)
        home.endpoints_file.unlink(missing_ok=True)
        if installation is not None:
            shutil.rmtree(installation.sockets, ignore_errors=True)


def _stop_in_order(supervisor: Supervisor) -> None:
    if not supervisor.answers():
        return
    for beginnings in PHASES:
        names = [name for name in supervisor.states() if name.startswith(beginnings)]
        try:
            supervisor.stop(names)
        except PlatformError as error:
            log.warning("%s; going on", error)
    supervisor.shut_down()
