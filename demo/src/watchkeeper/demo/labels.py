"""Labels arrive late: a bounded queue of what turned out, posted to the feedback endpoint."""

import asyncio
import logging
import random
import time
from collections import deque
from typing import Any, Final, NamedTuple

import httpx
import msgspec

from watchkeeper.demo.clients import CLIENT_HEADER

log = logging.getLogger(__name__)

BATCH: Final = 200
WAITING: Final = 100_000  # labels; a client that cannot get rid of them drops the oldest
PAUSE: Final = 0.5  # seconds between two posts
TIMEOUT: Final = 10.0


class Label(NamedTuple):
    """What turned out for the row of a prediction, to be told from ``due`` on (monotonic s)."""

    due: float
    prediction: str
    value: int


class LateLabels:
    """Posts each label ``delay`` seconds after its answer; a ``share`` of them never arrives."""

    def __init__(
        self, url: str, headers: dict[str, str], *, delay: float, lost_share: float, seed: int
    ) -> None:
        self._url = url
        self._headers = {**headers, CLIENT_HEADER: "inspection"}
        self._delay = delay
        self._lost_share = lost_share
        self._random = random.Random(seed)  # noqa: S311 - a simulation
        self._waiting: deque[Label] = deque(maxlen=WAITING)
        self.accepted = 0
        self.never_sent = 0
        self.dropped = 0
        self.refused = 0

    def add(self, prediction: str, value: int) -> None:
        """Take note of what turned out."""
        if self._random.random() < self._lost_share:
            self.never_sent += 1
            return
        self.dropped += len(self._waiting) == WAITING
        self._waiting.append(Label(time.monotonic() + self._delay, prediction, value))

    async def run(self, stopping: asyncio.Event) -> None:
        """Post what is due until ``stopping``, then all the rest, once."""
        async with httpx.AsyncClient(timeout=TIMEOUT) as http:
            while not stopping.is_set():
                await self._post_due(http, time.monotonic())
                try:
                    await asyncio.wait_for(stopping.wait(), PAUSE)
                except TimeoutError:
                    continue
            while self._waiting and await self._post_due(http, float("inf")):
                pass
            self.dropped += len(self._waiting)
            self._waiting.clear()

    async def _post_due(self, http: httpx.AsyncClient, now: float) -> bool:
        """Post what is due, oldest first; False when the endpoint did not take it now."""
        while self._waiting and self._waiting[0].due <= now:
            batch = [
                self._waiting.popleft()
                for _ in range(min(BATCH, len(self._waiting)))
                if self._waiting[0].due <= now
            ]
            try:
                response = await http.post(self._url, content=_body(batch), headers=self._headers)
            except httpx.TransportError as error:
                log.warning("labels: %r; they stay for the next time", error)
                self._waiting.extendleft(reversed(batch))
                return False
            if response.status_code == httpx.codes.ACCEPTED:
                self.accepted += len(batch)
            elif response.is_server_error:
                log.warning("labels: %d; they stay for the next time", response.status_code)
                self._waiting.extendleft(reversed(batch))
                return False
            else:
                # To say the same again would not help.
                log.error("labels refused: %d %s", response.status_code, response.text[:300])
                self.refused += len(batch)
        return True


def _body(batch: list[Label]) -> bytes:
    labels: list[dict[str, Any]] = [
        {"prediction_id": label.prediction, "row": 0, "value": label.value} for label in batch
    ]
    return msgspec.json.encode({"labels": labels})
