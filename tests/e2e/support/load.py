"""A steady load from outside of the cluster, by the plant and the senders of the demo."""

import asyncio
import threading
import time
from collections.abc import Coroutine
from types import TracebackType
from typing import Any

from installation import Installation

from watchkeeper.demo.clients import KITS
from watchkeeper.demo.messages import Answer, TrafficProgress
from watchkeeper.demo.offline_comparison import read_answers
from watchkeeper.demo.plants import STEADY, find
from watchkeeper.demo.senders import Traffic

LABEL_DELAY = 2.0
STOP_SECONDS = 900.0  # longer than the limit of the senders themselves


class Load:
    """Requests to one model while a block runs.

    The clients are tritonclient and the KServe SDK, over HTTP and gRPC. An event loop in a thread
    feeds the senders while a test waits for something.

    Attributes:
        model: the model.
        started: when the load started, in seconds since 1970.
        stopped: when it stopped, in seconds since 1970; 0 before that.
    """

    def __init__(
        self,
        installation: Installation,
        model: str,
        name: str,
        *,
        rate: float = 60.0,
        scenario: str = STEADY,
    ) -> None:
        """Prepare a load.

        Args:
            installation: the installation with the gateway.
            model: the model that gets the requests.
            name: the name of the folder with the answers.
            rate: requests per second.
            scenario: a scenario of the model's plant.
        """
        self.model = model
        self.started = self.stopped = 0.0
        self._installation = installation
        self._rate = rate
        self._traffic = Traffic(installation.folder / name, find(model), scenario)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "Load":
        installation = self._installation
        self._thread.start()
        self.started = time.time()
        self._run(
            self._traffic.start(
                installation.endpoints(),
                installation.secret("feedback-token"),
                source=installation.plant.outside,
                rate=self._rate,
                label_delay=LABEL_DELAY,
                keep_answers=True,
            )
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def switch(self, scenario: str) -> None:
        """Switch the plant to another scenario."""
        self._traffic.switch(scenario)

    def stop(self) -> None:
        """Stop sending, and wait for the last answers and labels."""
        if self._thread.is_alive():
            self._run(self._traffic.stop())
            self.stopped = time.time()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def check(self) -> None:
        """Check that the senders run and that no request has failed."""
        self._traffic.check()
        assert self.failed() == 0, self.progress().errors

    def progress(self) -> TrafficProgress:
        """Return the numbers of requests, answers and labels so far."""
        return self._traffic.progress()

    def failed(self) -> int:
        """Return the number of requests that have failed so far."""
        return sum(counts.failed for counts in self.progress().requests.values())

    def answered(self) -> int:
        """Return the number of answers over the protocol that has fewer."""
        return min(counts.answered for counts in self.progress().requests.values())

    def answers(self) -> list[Answer]:
        """Return every answer. The load must be stopped."""
        return read_answers([self._traffic.answers_file(kit) for kit in KITS])

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=STOP_SECONDS)
