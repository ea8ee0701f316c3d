"""Logging of all components: one line for each event, to standard error."""

import logging
import re
from typing import Final

FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_HEAD: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ [\w.]+: ")
VERBOSE_LIBRARIES: Final = ("httpx",)  # it logs every call, several times a second


def configure_logging() -> None:
    """Log messages from INFO on, and from verbose libraries warnings only."""
    logging.basicConfig(level=logging.INFO, format=FORMAT)
    for name in VERBOSE_LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)


def message_of(line: str) -> str:
    """Return the message in a line of a log; a line of another form is returned as it is.

    Example:
        >>> message_of("2026-11-30 12:24:51,934 ERROR watchkeeper.training: no such table")
        'no such table'
    """
    return line[match.end() :] if (match := _HEAD.match(line)) else line
