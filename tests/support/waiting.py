"""Waiting in tests: for a condition, with a deadline; never for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def wait_for(holds: Callable[[], Found], seconds: float = 120.0, *, what: str = "") -> Found:
    """Wait until ``holds()`` is true, and return what it was then."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        told = f": {what}" if what else ""
        assert time.monotonic() < deadline, f"not within {seconds:g} s{told}"
        time.sleep(0.02)
    return found
