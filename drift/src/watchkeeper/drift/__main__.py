"""``python -m watchkeeper.drift``: run the sidecar of one server."""

import os
import signal
import sys
import threading

from watchkeeper.core.exit_codes import EXIT_RETRY
from watchkeeper.core.logs import configure_logging
from watchkeeper.core.secret_changes import SecretFiles
from watchkeeper.core.settings import SettingsError, read_settings
from watchkeeper.drift.settings import SidecarSettings
from watchkeeper.drift.sidecar import Sidecar
from watchkeeper.platforms import Platform


def main() -> int:
    """Run until SIGTERM or SIGINT.

    Returns:
        The exit code: 0 if the spool was shipped completely, 1 if not, 2 if the settings are
        invalid.
    """
    configure_logging()
    secrets = SecretFiles()
    try:
        settings = read_settings(SidecarSettings)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        sidecar = Sidecar(settings, lambda: _open_platform(settings.platform), stop)
        # Not a graceful shutdown: that one closes the spool, and the server still writes to it.
        secrets.on_change(lambda: os._exit(EXIT_RETRY))
        return 0 if sidecar.run() else 1
    except (OSError, SettingsError) as error:
        print(error, file=sys.stderr)
        return 2


def _open_platform(text: str) -> Platform:
    # Import here: only the sidecar of the version in production needs the heavy clients.
    from watchkeeper.platforms import open_platform  # noqa: PLC0415

    return open_platform(text)


if __name__ == "__main__":
    sys.exit(main())
