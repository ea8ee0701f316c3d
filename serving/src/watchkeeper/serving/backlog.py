"""How long calls over gRPC wait in its core, where nobody can see them: a call of our own tells.

The core keeps all calls in one line, whatever their method, and hands them out one by one. So
the server now and then calls itself and looks when that call comes out. It does so only while
others call: once in so many of their calls, and without a pause while they wait too long.
"""

import asyncio
import math
import time
from typing import Any

import grpc
from grpc import aio

from watchkeeper.serving.overload import INTERVAL, QUEUE

METHOD = "/watchkeeper.Backlog/Look"
EVERY = 64  # calls of others between two of our own
_AT_LEAST = 0.01  # seconds that a call of our own may take on a busy machine without any queue
_SECONDS = 5.0  # after which a call of our own is given up
_ROUNDS = 4  # of so many calls each, that may be answered while a call waits in the core
_NEWEST = 0.1  # weight of the newest call in the cost of one


class Backlog:
    """Tells whether calls wait longer than ``target`` seconds, and have for an interval."""

    def __init__(self, target: float) -> None:
        self._target = max(target, _AT_LEAST)
        self._channel: Any = None
        self._look: asyncio.Task[None] | None = None
        self._sent = 0.0
        self._late_since = math.inf
        self._calls = 0
        self._cost = 0.0

    def open(self, address: str) -> None:
        """Begin to look; the server listens at ``address``."""
        options = [("grpc.enable_http_proxy", 0)]
        self._channel = aio.insecure_channel(address, options)

    async def close(self) -> None:
        """Look no more."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    def full(self) -> bool:
        """Count a call that has come out; tell whether it is better turned away."""
        self._calls += 1
        if self._look is not None:
            self._waited(at_least=True)
        elif self._calls >= EVERY and self._channel is not None:
            self._calls = 0
            self._look = asyncio.create_task(self._call(self._channel))
        return time.perf_counter() - self._late_since > INTERVAL

    def answered(self, seconds: float) -> None:
        """Learn what a call costs: a few calls at once are no backlog, however long each takes."""
        self._cost += (seconds - self._cost) * _NEWEST

    async def arrived(self, request: bytes, context: Any) -> bytes:  # noqa: ARG002
        """Answer a call of our own."""
        self._waited()
        return b""

    def _waited(self, *, at_least: bool = False) -> None:
        now = time.perf_counter()
        if now - self._sent > max(self._target, _ROUNDS * QUEUE * self._cost):
            self._late_since = min(self._late_since, now)
        elif not at_least:
            self._late_since = math.inf

    async def _call(self, channel: Any) -> None:
        try:
            while True:
                self._sent = time.perf_counter()
                try:
                    await channel.unary_unary(METHOD)(b"", timeout=_SECONDS)
                except grpc.RpcError as error:
                    if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                        # Nothing is known: the server ends, or has no room for our connection.
                        self._late_since = math.inf
                if self._late_since == math.inf:
                    return
        finally:
            self._look = None
