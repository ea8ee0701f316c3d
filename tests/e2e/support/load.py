"""A steady load from outside: the demo's plant and senders, told where the Gateway is."""

import asyncio
import threading
import time
from collections.abc import Coroutine
from types import TracebackType
from typing import Any

from installation import Installation

from watchkeeper.demo.checking import read_answers
from watchkeeper.demo.clients import KITS
from watchkeeper.demo.sender import Answer, Progress
from watchkeeper.demo.senders import Traffic
from watchkeeper.demo.worlds import STEADY, find

LABEL_DELAY = 2.0
STOP_SECONDS = 180.0


class Load:
    """Requests to one model by tritonclient and the KServe SDK, over HTTP and gRPC, while a block
    runs. ``began`` and ``ended`` are in seconds since 1970.

    An event loop in a thread of its own keeps the senders fed while tests wait for something.
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
        """``name`` is that of its folder; ``rate`` is in requests a second."""
        self.model = model
        self.began = self.ended = 0.0
        self._installation = installation
        self._rate = rate
        self._traffic = Traffic(installation.folder / name, find(model), scenario)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "Load":
        installation = self._installation
        self._thread.start()
        self.began = time.time()
        self._do(
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
        """Let things go by another scenario from the next seconds on."""
        self._traffic.switch(scenario)

    def stop(self) -> None:
        """Stop sending, wait for the last answers, and tell the last labels."""
        if self._thread.is_alive():
            self._do(self._traffic.stop())
            self.ended = time.time()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def check(self) -> None:
        """Make sure that the load goes on, and that no request has failed."""
        self._traffic.check()
        progress = self.progress()
        assert sum(counts.failed for counts in progress.requests.values()) == 0, progress.errors

    def progress(self) -> Progress:
        return self._traffic.progress()

    def answered(self) -> int:
        """Count the answers over the protocol that has fewer."""
        return min(counts.answered for counts in self.progress().requests.values())

    def answers(self) -> list[Answer]:
        """Return every answer; the load must be stopped."""
        return read_answers([self._traffic.answers_file(kit) for kit in KITS])

    def _do(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(timeout=STOP_SECONDS)
