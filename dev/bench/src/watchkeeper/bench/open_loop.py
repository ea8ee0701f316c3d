"""An open loop of requests: each is sent when it is due, even if others are still unanswered.

Latency counts from the moment when a request was due. A server that is slow for a moment is
therefore charged for all requests that are due meanwhile (no coordinated omission).
"""

import asyncio
from collections import deque
from typing import cast

import msgspec
import numpy as np
import uvloop

from watchkeeper.bench.cases import Case

CONNECTIONS = 512


class Outcome(msgspec.Struct, frozen=True):
    """The answers to an open loop.

    Attributes:
        accepted: Latencies of the answers with status 200, in seconds.
        refused: Number of answers with another status.
        without_retry_after: How many of these had no header ``Retry-After``.
        due: Number of requests that were due.
    """

    accepted: list[float]
    refused: int
    without_retry_after: int
    due: int

    def quantile(self, q: float) -> float:
        """Return a quantile of the latency of accepted requests, in seconds."""
        return float(np.quantile(self.accepted, q)) if self.accepted else float("inf")


class _Connection(asyncio.Protocol):
    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._buffer = b""
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._load.idle.append(self)
        self._load.connections.append(self)

    def close(self) -> None:
        self._transport.abort()

    def send(self, due: float) -> None:
        self.due = due
        self._transport.write(self._load.request)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        length = int(head.partition(b"content-length: ")[2].split(b"\r\n", 1)[0])
        if len(self._buffer) < end + 4 + length:
            return
        self._buffer = b""
        self._load.answered(self, head)


class _Load:
    def __init__(self, case: Case, port: int) -> None:
        body = case.body
        head = f"POST {case.path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in case.headers.items()
        )
        self.request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
        self.connections: list[_Connection] = []
        self.idle: deque[_Connection] = deque()
        self.waiting: deque[float] = deque()
        self.accepted: list[float] = []
        self.refused = self.without_retry_after = self.due = 0
        self.counts_from = 0.0

    def answered(self, connection: _Connection, head: bytes) -> None:
        now = asyncio.get_running_loop().time()
        if connection.due >= self.counts_from:
            if head.startswith(b"http/1.1 200"):
                self.accepted.append(now - connection.due)
            else:
                self.refused += 1
                self.without_retry_after += b"\r\nretry-after: " not in head
        if self.waiting:
            connection.send(self.waiting.popleft())
        else:
            self.idle.append(connection)

    async def run(self, port: int, rate: float, seconds: float, warm_up: float) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            await loop.create_connection(lambda: _Connection(self), "127.0.0.1", port)
        begin = loop.time()
        self.counts_from = begin + warm_up
        sent = 0
        while (now := loop.time()) < begin + warm_up + seconds:
            for number in range(sent, int((now - begin) * rate)):
                due = begin + number / rate
                self.due += due >= self.counts_from
                if self.idle:
                    self.idle.popleft().send(due)
                else:
                    self.waiting.append(due)
                sent = number + 1
            await asyncio.sleep(0.001)
        # Requests that were not sent or have no answer yet count as accepted, with their full wait.
        unanswered = [c.due for c in self.connections if c not in self.idle]
        late = [due for due in (*self.waiting, *unanswered) if due >= self.counts_from]
        self.accepted += [loop.time() - due for due in late]
        self.waiting.clear()
        for connection in self.connections:
            connection.close()


def send(case: Case, port: int, rate: float, seconds: float, warm_up: float = 1.0) -> Outcome:
    """Send ``rate`` requests per second for ``seconds``, after a warm-up that does not count."""
    load = _Load(case, port)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(load.run(port, rate, seconds, warm_up))
    return Outcome(load.accepted, load.refused, load.without_retry_after, load.due)
