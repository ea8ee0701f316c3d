"""How a program ends when it is asked to."""

import os
import signal
import subprocess
import sys

import pytest

from watchkeeper.contracts.exits import ENDED

FIRST = ["unshare", "--pid", "--fork", *([] if os.geteuid() == 0 else ["--map-root-user"])]
WAITS = """
import os, signal, sys
from watchkeeper.contracts.exits import end_at_sigterm

if sys.argv[1] == "told":
    end_at_sigterm()
print(os.getpid(), flush=True)
signal.pause()
"""


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def ended(how: str) -> int | None:
    """Start the first process of a container, ask it to end, and tell how it did, if it did."""
    command = [*FIRST, sys.executable, "-c", WAITS, how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as outer:
        try:
            assert outer.stdout is not None
            assert outer.stdout.readline() == "1\n"
            (first,) = children(outer.pid)
            os.kill(first, signal.SIGTERM)
            return outer.wait(3)
        except subprocess.TimeoutExpired:
            return None
        finally:
            for child in children(outer.pid) if outer.poll() is None else []:
                os.kill(child, signal.SIGKILL)


def test_the_first_process_of_a_container_ends_when_it_is_asked_to() -> None:
    if subprocess.run([*FIRST, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("a container's first process needs root, or user namespaces")
    assert ended("told") == ENDED
    assert ended("not told") is None, "else nobody would have to be told"
