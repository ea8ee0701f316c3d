"""Labels that arrive late: a bounded queue, posted to the feedback endpoint."""

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
MAX_WAITING: Final = 100_000  # labels; a full queue drops its oldest label
POST_INTERVAL: Final = 0.5  # seconds between two posts
TIMEOUT: Final = 60.0  # seconds for one post


class Label(NamedTuple):
    """The outcome for a prediction, to be sent from ``due`` on (seconds, monotonic clock)."""

    due: float
    prediction: str
    value: int


class DelayedLabels:
    """Posts each label ``delay`` seconds after its answer, and never sends ``lost_share`` of them.

    ``accepted``, ``never_sent``, ``dropped`` and ``refused`` count labels.
    """

    def __init__(
        self, url: str, headers: dict[str, str], *, delay: float, lost_share: float, seed: int
    ) -> None:
        self._url = url
        self._headers = {**headers, CLIENT_HEADER: "inspection"}
        self._delay = delay
        self._lost_share = lost_share
        self._random = random.Random(seed)  # noqa: S311 - a simulation
        self._waiting: deque[Label] = deque(maxlen=MAX_WAITING)
        self.accepted = 0
        self.never_sent = 0
        self.dropped = 0
        self.refused = 0

    def add(self, prediction: str, value: int) -> None:
        """Queue the label of a prediction."""
        if self._random.random() < self._lost_share:
            self.never_sent += 1
            return
        self.dropped += len(self._waiting) == MAX_WAITING
        self._waiting.append(Label(time.monotonic() + self._delay, prediction, value))

    async def run(self, stopping: asyncio.Event) -> None:
        """Post labels that are due until ``stopping`` is set, then all others once."""
        async with httpx.AsyncClient(timeout=TIMEOUT) as http:
            while not stopping.is_set():
                await self._post_due(http, time.monotonic())
                try:
                    await asyncio.wait_for(stopping.wait(), POST_INTERVAL)
                except TimeoutError:
                    continue
            while self._waiting and await self._post_due(http, float("inf")):
                pass
            self.dropped += len(self._waiting)
            self._waiting.clear()

    async def _post_due(self, http: httpx.AsyncClient, now: float) -> bool:
        """Post the labels that are due, oldest first; return False if the endpoint fails."""
        while self._waiting and self._waiting[0].due <= now:
            batch = [
                self._waiting.popleft()
                for _ in range(min(BATCH, len(self._waiting)))
                if self._waiting[0].due <= now
            ]
            try:
                response = await http.post(self._url, content=_body(batch), headers=self._headers)
            except httpx.TransportError as error:
                log.warning("labels: %r; they are sent again later", error)
                self._waiting.extendleft(reversed(batch))
                return False
            if response.status_code == httpx.codes.ACCEPTED:
                self.accepted += len(batch)
            elif response.is_server_error:
                log.warning("labels: %d; they are sent again later", response.status_code)
                self._waiting.extendleft(reversed(batch))
                return False
            else:
                # The same request would be refused again.
                log.error("labels refused: %d %s", response.status_code, response.text[:300])
                self.refused += len(batch)
        return True


def _body(batch: list[Label]) -> bytes:
    labels: list[dict[str, Any]] = [
        {"prediction_id": label.prediction, "row": 0, "value": label.value} for label in batch
    ]
    return msgspec.json.encode({"labels": labels})
