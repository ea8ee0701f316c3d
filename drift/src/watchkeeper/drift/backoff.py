"""Exponential back-off, with a limit."""

from typing import Final

MAXIMUM_SECONDS: Final = 30.0


def backoff(seconds: float, failures: int) -> float:
    """Return how many seconds to wait after ``failures`` errors in a row.

    The first error doubles ``seconds``, each further error doubles it again.
    """
    # The exponent is limited: after hours of errors the power would not fit a float.
    return min(MAXIMUM_SECONDS, seconds * 2.0 ** min(failures, 10))
