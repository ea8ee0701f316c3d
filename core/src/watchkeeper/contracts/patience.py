"""Patience with what is about to start: its first answer is waited for, a refusal not for long."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

POLL_SECONDS = 1.0

Answer = TypeVar("Answer")

log = logging.getLogger(__name__)


def ask_patiently(
    ask: Callable[[], Answer],
    late: tuple[type[Exception], ...],
    *,
    deadline: float,
    refused: Callable[[Exception], bool],
    refused_seconds: float,
) -> Answer:
    """Ask until there is an answer, or ``deadline`` by the monotonic clock has passed.

    ``late`` are the errors of what is not there yet. One that says for ``refused_seconds`` in the
    same words that it is ``refused`` gets no better. Each reason is logged once. Raises what the
    last try did.
    """
    said, since = "", 0.0
    while True:
        try:
            return ask()
        except late as error:
            now = time.monotonic()
            if said != (said := in_words(error)):
                log.warning("waits: %s", said)
                since = now
            if now > deadline or (refused(error) and now - since > refused_seconds):
                raise
            time.sleep(POLL_SECONDS)


def in_words(error: Exception) -> str:
    """Return an error on one line; of SQLAlchemy's only what the database said."""
    return " ".join(str(getattr(error, "orig", None) or error).split())
