"""Waiting for a condition in tests, with a deadline and never for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def wait_for(condition: Callable[[], Found], seconds: float = 120.0, *, what: str = "") -> Found:
    """Wait until ``condition()`` is true, and return its value.

    Args:
        condition: called every 20 ms.
        seconds: the time limit.
        what: the condition in words, for the message of a failure.

    Raises:
        AssertionError: the condition is not true within the limit.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        detail = f": {what}" if what else ""
        assert time.monotonic() < deadline, f"not within {seconds:g} s{detail}"
        time.sleep(0.02)
    return found
