"""``python -m watchkeeper.drift``: the sidecar of one serving process."""

import signal
import sys
import threading

from watchkeeper.contracts.logs import set_up_log
from watchkeeper.contracts.settings import SettingsError, read_settings
from watchkeeper.drift.settings import Settings
from watchkeeper.drift.sidecar import Sidecar
from watchkeeper.platforms import Platform


def main() -> int:
    """Run until SIGTERM or SIGINT; 0 when the tail is shipped, 1 when not, 2 for bad settings."""
    set_up_log()
    try:
        settings = read_settings(Settings)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        sidecar = Sidecar(settings, lambda: _open_platform(settings.platform), stop)
        return 0 if sidecar.run() else 1
    except (OSError, SettingsError) as error:
        print(error, file=sys.stderr)
        return 2


def _open_platform(text: str) -> Platform:
    # Only production's sidecar needs it, and its clients are heavy.
    from watchkeeper.platforms import open_platform  # noqa: PLC0415

    return open_platform(text)


if __name__ == "__main__":
    sys.exit(main())
