"""Logging of all components: one line for each event, to standard error."""

import logging
from typing import Final

FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
VERBOSE_LIBRARIES: Final = ("httpx",)  # it logs every call, several times a second


def configure_logging() -> None:
    """Log messages from INFO on, and from verbose libraries warnings only."""
    logging.basicConfig(level=logging.INFO, format=FORMAT)
    for name in VERBOSE_LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
