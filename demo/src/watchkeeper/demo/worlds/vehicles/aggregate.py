"""The model's own refresh of its features, kept at hand: training's command, one line a time."""

import contextlib
import os
import selectors
import subprocess
import time
from pathlib import Path
from typing import Final

from watchkeeper.demo import system

PYTHON: Final = system.ROOT / "training" / ".venv" / "bin" / "python"
SECONDS: Final = 90.0  # its start takes some on a busy machine


class Refresher:
    """One process, which refreshes once for each line that it is given, and ends with its input."""

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
                start_new_session=True,  # Ctrl-C reaches it by the end of its input
            )

    def refresh(self) -> None:
        """Bring the features up to date, and wait until they are.

        Raises:
            UnavailableError: the process has ended, or does not answer in time.
        """
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        with contextlib.suppress(BrokenPipeError):  # its end is told below
            self._process.stdin.write(b"\n")
        if not self._answers():
            code = self._process.poll()
            why = f"no answer in {SECONDS:.0f} s" if code is None else f"exit code {code}"
            raise system.UnavailableError(f"watchkeeper.training.refresh: {why}: {self._log}")

    def kill(self) -> None:
        """End the process, also while somebody waits for it: that one gets the error."""
        self._process.kill()  # a refresh is one transaction: it is there or it is not
        self._process.wait()

    def close(self) -> None:
        """End the process, and close what led to it."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _answers(self) -> bool:
        """Read one line."""
        pipe = self._process.stdout
        assert pipe is not None  # noqa: S101 - it was asked for
        deadline = time.monotonic() + SECONDS
        with selectors.DefaultSelector() as ready:
            ready.register(pipe, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                if ready.select(left):
                    got = os.read(pipe.fileno(), 4096)
                    if not got or got.endswith(b"\n"):
                        return bool(got)
        return False
