"""Programs end at SIGTERM, also as the first process of a container."""

import os
import signal
import subprocess
import sys

import pytest

from watchkeeper.core.exit_codes import EXIT_TERMINATED

CONTAINER = [
    "unshare",
    "--pid",
    "--fork",
    *([] if os.geteuid() == 0 else ["--map-root-user"]),
]
PROGRAM = """
import os, signal, sys
from watchkeeper.core.exit_codes import exit_on_sigterm

if sys.argv[1] == "handler":
    exit_on_sigterm()
print(os.getpid(), flush=True)
signal.pause()
"""


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def exit_code(how: str) -> int | None:
    """Send SIGTERM to the first process of a container; return its exit code if it ends."""
    command = [*CONTAINER, sys.executable, "-c", PROGRAM, how]
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


def test_the_first_process_of_a_container_ends_at_sigterm() -> None:
    if subprocess.run([*CONTAINER, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("a container's first process needs root, or user namespaces")
    assert exit_code("handler") == EXIT_TERMINATED
    assert exit_code("no handler") is None, "Linux ends it without a handler"
