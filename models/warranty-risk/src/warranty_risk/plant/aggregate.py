"""The model's own refresh in a process that stays: ``watchkeeper.training.refresh --each-line``."""

import contextlib
import os
import selectors
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from watchkeeper.demo import system

PYTHON: Final = sys.executable
ANSWER_SECONDS: Final = 90.0  # includes the start of the process on a busy machine


class Refresher:
    """A process that refreshes once for each line on its input, and ends with its input."""

    def __init__(self, model: str, url: str, log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [PYTHON, "-m", "watchkeeper.training.refresh", model, "--each-line"],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env={**os.environ, "WATCHKEEPER_SOURCE_URL": url},
                start_new_session=True,  # Ctrl-C ends it by closing its input
            )

    def refresh(self) -> None:
        """Bring the features up to date, and wait for the answer.

        Raises:
            SystemUnavailableError: the process has ended, or does not answer in time.
        """
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        with contextlib.suppress(BrokenPipeError):  # its end is reported below
            self._process.stdin.write(b"\n")
        if not self._answers():
            code = self._process.poll()
            why = f"no answer in {ANSWER_SECONDS:.0f} s" if code is None else f"exit code {code}"
            raise system.SystemUnavailableError(f"watchkeeper.training.refresh: {why}: {self._log}")

    def kill(self) -> None:
        """End the process; a refresh that waits for it raises its error."""
        self._process.kill()  # a refresh is one transaction
        self._process.wait()

    def close(self) -> None:
        """End the process and close its pipes."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _answers(self) -> bool:
        """Return whether the process answers with a line in time."""
        pipe = self._process.stdout
        assert pipe is not None  # noqa: S101 - it is a pipe
        deadline = time.monotonic() + ANSWER_SECONDS
        with selectors.DefaultSelector() as ready:
            ready.register(pipe, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                if ready.select(left):
                    got = os.read(pipe.fileno(), 4096)
                    if not got or got.endswith(b"\n"):
                        return bool(got)
        return False
