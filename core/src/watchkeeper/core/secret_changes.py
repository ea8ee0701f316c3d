"""Noticing that a secret was replaced while a process runs.

A process reads its secrets when it starts. Kubelet replaces the files of a mounted Secret while the
process runs. The process then ends, and its supervisor starts it again with the new secrets. That
is simpler than a second way to read settings, and every other start tests it.
"""

import hashlib
import logging
import os
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

CHECK_SECONDS: Final = 10.0
OURS: Final = re.compile(r"WATCHKEEPER_\w+_FILE|MLFLOW_TRACKING_PASSWORD_FILE")

log = logging.getLogger(__name__)


class SecretFiles:
    """The files that the variables of our settings name, as they are now.

    Variables of others, such as those of a cloud for its tokens, name files that change often.

    Create it before the secrets are read, so that no change is missed::

        secrets = SecretFiles()
        settings = read_settings(Settings)
        secrets.on_change(stop.set)

    Args:
        environ: the variables; the environment of this process by default.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        source = os.environ if environ is None else environ
        self._paths = {name: Path(path) for name, path in source.items() if OURS.fullmatch(name)}
        self._first = {name: _digest(path) for name, path in self._paths.items()}

    def changed(self) -> list[str]:
        """Return the variables whose file has another content than at first.

        A file that is missing or not readable at the moment has not changed.
        """
        now = {name: _digest(path) for name, path in self._paths.items()}
        return [name for name, digest in now.items() if digest not in (None, self._first[name])]

    def on_change(self, call: Callable[[], None], seconds: float = CHECK_SECONDS) -> None:
        """Call a function once, in a thread of its own, after a file has changed.

        Args:
            call: the function. It ends the process.
            seconds: the time between two checks.
        """

        def watch() -> None:
            while not (changed := self.changed()):
                pause.wait(seconds)
            log.info("restarts to read %s, whose file has changed", ", ".join(changed))
            call()

        pause = threading.Event()
        if self._paths:
            threading.Thread(target=watch, name="secret changes", daemon=True).start()


def _digest(path: Path) -> bytes | None:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return None
