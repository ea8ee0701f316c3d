"""Simulate that a process is killed at a line."""

import sys
from types import FrameType
from typing import Any


class Killed(BaseException):
    """Simulates that the process is killed."""


def killed_at(line: int, call: Any, traced: tuple[str, ...]) -> bool:
    """Call and kill at the ``line``-th executed line of the files that end like ``traced``.

    False if the call ended before this line.
    """
    left = line

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        name = frame.f_code.co_filename
        if not name.endswith(traced):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                raise Killed
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Killed:
        return True
    finally:
        sys.settrace(before)
    return False
