"""``python -m watchkeeper.serving``: serve one version over HTTP and gRPC."""

import asyncio
import logging
import sys

from watchkeeper.contracts.logs import set_up_log
from watchkeeper.contracts.settings import read_settings
from watchkeeper.contracts.version import BrokenVersionError
from watchkeeper.serving.settings import ServingSettings

logger = logging.getLogger("watchkeeper.serving")


def main() -> int:
    """Serve until SIGTERM, then return 0; 1 if the version cannot be served, 2 for bad settings."""
    set_up_log()
    for chatty in ("mlserver", "uvicorn"):
        logging.getLogger(chatty).setLevel("WARNING")
    try:
        settings = read_settings(ServingSettings)
    except ValueError as error:
        logger.error("%s", error)  # noqa: TRY400 - the message says it all
        return 2
    # Imported now, so that bad settings are told at once and not after seconds of imports.
    import uvloop  # noqa: PLC0415

    from watchkeeper.serving.host import serve  # noqa: PLC0415
    from watchkeeper.serving.servers import PortError  # noqa: PLC0415

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(serve(settings))
    except (BrokenVersionError, PortError, OSError) as error:
        logger.error("cannot serve %s %s: %s", settings.model, settings.version, error)  # noqa: TRY400
        return 1


if __name__ == "__main__":
    sys.exit(main())
