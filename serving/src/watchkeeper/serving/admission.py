"""Admission control: refuse requests unread when more arrive than the server can answer in time.

The queueing delay decides, as in CoDel (K. Nichols and V. Jacobson, "Controlling Queue Delay",
ACM Queue 10(5), 2012; RFC 8289), in its variant for servers (B. Maurer, "Fail at Scale", ACM Queue
13(8), 2015). The queue contains what the event loop has read and not answered yet. The loop reads
everything that has arrived and answers it; meanwhile the next requests queue in the kernel. A
delay may be long for a moment, because bursts pass. If no delay was short for an interval, there is
a standing queue, which helps nobody. Then the server admits only as many requests as it can answer
within the target.

gRPC calls queue inside gRPC and arrive one by one. They are refused if the queue of the event loop
is full, or if they waited too long inside gRPC (see :mod:`watchkeeper.serving.grpc_queue`).
"""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from watchkeeper.core.record import Protocol, Shed
from watchkeeper.serving.metrics import Metrics
from watchkeeper.serving.spool import SpoolWriter

OVERLOADED = "overloaded: more requests come than can be answered in time; try again in a second"
STANDING_SECONDS = 0.1  # without a short delay, until a queue is a standing queue
IDLE_SECONDS = 0.05  # without a request, until a standing queue is over
BURST_TARGETS = 100  # a delay may be this many targets long while there is no standing queue
NO_QUEUE = 16  # this many waiting requests are not a queue, however long each of them takes
# Weight of the newest measurement in the cost of a request, if it is higher or lower than before.
# A busy machine makes a request look expensive, never cheap.
_WEIGHT_UP, _WEIGHT_DOWN = 0.02, 0.5


class AdmissionController:
    """Decides from the queueing delay whether the server admits one more request.

    Each request that is read calls :meth:`enter`, and :meth:`leave` after its answer.

    Args:
        target: The delay in seconds that a standing queue may have.
        clock: Returns seconds; tests replace it.
    """

    def __init__(self, target: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self._target = target
        self._clock = clock
        self._waiting = 0
        self._answered = 0  # requests whose time is not in the cost yet
        self._busy_since = 0.0  # start of the time in which these were answered
        self._cost = 0.0  # seconds per request
        self._last_queue = 0.0  # newest time with more than NO_QUEUE waiting requests
        self._last_refusal = -math.inf  # newest refusal because of a standing queue
        self._last_short_delay = self._last_answer = clock()
        self.standing_queue = False

    def is_full(self) -> bool:
        """Return whether the waiting requests already take longer than the next one may wait."""
        if self._waiting <= NO_QUEUE:
            return False
        delay = self._waiting * self._cost
        if not self.standing_queue:
            return delay > BURST_TARGETS * self._target
        if delay <= self._target:
            return False
        self._last_refusal = self._clock()
        return True

    def enter(self) -> float:
        """Count a request that was read and waits. Return its arrival, for the other methods."""
        now = self._clock()
        if self._answered:
            self._update_cost()
        if not self._waiting:
            if now - self._last_answer > IDLE_SECONDS:
                self._last_short_delay, self.standing_queue = now, False
            self._busy_since = now
        self._waiting += 1
        if self._waiting > NO_QUEUE:
            self._last_queue = now
        return now

    def is_late(self, arrival: float) -> bool:
        """Return whether a request has waited so long that the server should refuse it.

        This is for requests that arrived in several parts. :meth:`is_full` cannot refuse those,
        because the server cannot know where they end.
        """
        waited = self._clock() - arrival
        return self.standing_queue and waited > max(self._target, NO_QUEUE * self._cost)

    def leave(self, arrival: float) -> None:
        """Count a request that is answered, and learn from its delay."""
        now = self._clock()
        self._waiting -= 1
        self._answered += 1
        self._last_answer = now
        # While the server refuses requests, delays are short only because of the refusals.
        if now - self._last_refusal > STANDING_SECONDS and (
            now - arrival < self._target or arrival > self._last_queue
        ):
            self._last_short_delay = now
        self.standing_queue = now - self._last_short_delay > STANDING_SECONDS

    def _update_cost(self) -> None:
        """Measure the cost of a request on those answered since the newest arrival."""
        cost = (self._last_answer - self._busy_since) / self._answered
        weight = _WEIGHT_UP if 0 < self._cost < cost else _WEIGHT_DOWN
        self._cost += (cost - self._cost) * weight
        self._busy_since, self._answered = self._last_answer, 0


class ShedCounter:
    """Counts requests that were refused unread, and reports the counts in the spool."""

    def __init__(self, model: str, version: int, spool: SpoolWriter, metrics: Metrics) -> None:
        self._model, self._version = model, version
        self._spool, self._metrics = spool, metrics
        self._counts: dict[Protocol, int] = {}
        self._since: dict[Protocol, float] = {}
        self._reported = time.time()

    def count(self, protocol: Protocol) -> None:
        """Count one request."""
        if protocol not in self._counts:
            self._counts[protocol], self._since[protocol] = 0, self._reported
        self._counts[protocol] += 1
        self._metrics.count_shed(protocol)

    def report(self) -> None:
        """Write the counts since the last report, one line per protocol.

        If the spool is full, the counts stay for the next report.
        """
        now = time.time()
        for protocol, count in list(self._counts.items()):
            record = Shed(self._model, self._version, protocol, count, self._since[protocol], now)
            if self._spool.write(msgspec.json.encode(record) + b"\n"):
                del self._counts[protocol]
        self._reported = now


class Admission(NamedTuple):
    """The admission control of a process."""

    controller: AdmissionController
    shed: ShedCounter
