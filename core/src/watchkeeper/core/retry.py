"""Waiting for a service that is still starting."""

import logging
import time
from collections.abc import Callable
from typing import Final, TypeVar

POLL_SECONDS: Final = 1.0

Result = TypeVar("Result")

log = logging.getLogger(__name__)


def retry_until_answered(
    call: Callable[[], Result],
    unavailable: tuple[type[Exception], ...],
    *,
    deadline: float,
    refused: Callable[[Exception], bool],
    refused_seconds: float,
) -> Result:
    """Call a service once a second until it answers, and return the result.

    Each new reason for a failure is logged once.

    Args:
        call: What to call.
        unavailable: The errors of a service that is not available yet. Other errors are raised at
            once.
        deadline: When to stop, on the monotonic clock.
        refused: Returns whether an error is a refusal, for example of a password. A refusal may
            pass while a service starts, but not much later.
        refused_seconds: How long the same refusal is retried.

    Raises:
        Exception: the error of the last call.
    """
    reason, since = "", 0.0
    while True:
        try:
            return call()
        except unavailable as error:
            now = time.monotonic()
            if reason != (reason := error_text(error)):
                log.warning("waits: %s", reason)
                since = now
            if now > deadline or (refused(error) and now - since > refused_seconds):
                raise
            time.sleep(POLL_SECONDS)


def error_text(error: Exception) -> str:
    """Return the message of an error on one line; of an SQLAlchemy error the database's message."""
    return " ".join(str(getattr(error, "orig", None) or error).split())
