"""How long calls wait in gRPC's queue.

gRPC's core queues all calls, whatever their method, and delivers them one by one. The server
cannot see this queue. So it sometimes calls itself and measures when its own call is delivered. It
does so only while clients call: once per ``_CALLS_PER_PROBE`` calls, and without a pause while the
calls wait too long.
"""

import asyncio
import math
import secrets
import time
from typing import Any

import grpc
from grpc import aio

from watchkeeper.serving.admission import NO_QUEUE, STANDING_SECONDS

PROBE_METHOD = f"/watchkeeper.GrpcQueue/{secrets.token_hex(16)}"  # no client knows the name
_CALLS_PER_PROBE = 64
_MIN_TARGET = 0.01  # seconds that a probe can take on a busy machine without any queue
_PROBE_TIMEOUT = 5.0  # seconds
_BATCHES = 4  # of NO_QUEUE calls each, that may be answered while a probe waits
_WEIGHT = 0.1  # of the newest call in the average cost of a call


class GrpcQueueProbe:
    """Measures the delay in gRPC's queue.

    Args:
        target: The delay in seconds that the queue may have.
    """

    def __init__(self, target: float) -> None:
        self._target = max(target, _MIN_TARGET)
        self._channel: Any = None
        self._probe: asyncio.Task[None] | None = None
        self._sent = 0.0
        self._late_since = math.inf
        self._calls = 0
        self._cost = 0.0

    def start(self, address: str) -> None:
        """Start to probe the server that listens at ``address``."""
        options = [("grpc.enable_http_proxy", 0)]
        self._channel = aio.insecure_channel(address, options)

    async def stop(self) -> None:
        """Stop to probe."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    def is_queue_full(self) -> bool:
        """Count a call of a client, and return whether calls have waited too long for a while."""
        self._calls += 1
        if self._probe is not None:
            self._measure(delivered=False)
        elif self._calls >= _CALLS_PER_PROBE and self._channel is not None:
            self._calls = 0
            self._probe = asyncio.create_task(self._send_probes(self._channel))
        return time.perf_counter() - self._late_since > STANDING_SECONDS

    def observe_call(self, seconds: float) -> None:
        """Learn what a call costs: a few slow calls at once are not a queue."""
        self._cost += (seconds - self._cost) * _WEIGHT

    async def handle_probe(self, request: bytes, context: Any) -> bytes:  # noqa: ARG002
        """Answer a probe. The server registers this method as ``PROBE_METHOD``."""
        self._measure(delivered=True)
        return b""

    def _measure(self, *, delivered: bool) -> None:
        now = time.perf_counter()
        if now - self._sent > max(self._target, _BATCHES * NO_QUEUE * self._cost):
            self._late_since = min(self._late_since, now)
        elif delivered:
            self._late_since = math.inf

    async def _send_probes(self, channel: Any) -> None:
        try:
            while True:
                self._sent = time.perf_counter()
                try:
                    await channel.unary_unary(PROBE_METHOD)(b"", timeout=_PROBE_TIMEOUT)
                except grpc.RpcError as error:
                    if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                        # The server stops or has no connection left, so the delay is unknown.
                        self._late_since = math.inf
                if self._late_since == math.inf:
                    return
        finally:
            self._probe = None
