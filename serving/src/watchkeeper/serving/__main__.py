"""``python -m watchkeeper.serving``: serve one version over HTTP and gRPC."""

import asyncio
import logging
import sys

from watchkeeper.core.logs import configure_logging
from watchkeeper.core.settings import read_settings
from watchkeeper.core.version import BrokenVersionError
from watchkeeper.serving.settings import ServingSettings

logger = logging.getLogger("watchkeeper.serving")


def main() -> int:
    """Serve until SIGTERM.

    Returns:
        The exit code: 0 after SIGTERM, 1 if the version cannot be served, 2 for wrong settings.
    """
    configure_logging()
    for name in ("mlserver", "uvicorn"):
        logging.getLogger(name).setLevel("WARNING")
    try:
        settings = read_settings(ServingSettings)
    except ValueError as error:
        logger.error("%s", error)  # noqa: TRY400 - the message is enough
        return 2
    # These imports take seconds. Wrong settings are reported before them.
    import uvloop  # noqa: PLC0415

    from watchkeeper.serving.process import serve  # noqa: PLC0415
    from watchkeeper.serving.servers import PortError  # noqa: PLC0415

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(serve(settings))
    except (BrokenVersionError, PortError, OSError) as error:
        logger.error("cannot serve %s %s: %s", settings.model, settings.version, error)  # noqa: TRY400
        return 1


if __name__ == "__main__":
    sys.exit(main())
