"""Overload: when a request is turned away unread, and how that is told afterwards.

Queueing delay decides, as in CoDel (K. Nichols and V. Jacobson, "Controlling Queue Delay", ACM
Queue 10(5), 2012; RFC 8289) in its form for servers (B. Maurer, "Fail at Scale", ACM Queue 13(8),
2015). The queue is what the event loop has read and not yet answered: it reads all that has
come, answers it, and meanwhile the next round gathers in the kernel. Delays may be long for a
moment, because bursts pass; once none has been short for an interval there is a standing queue,
which helps nobody: then no more is taken than can be answered within the target.

Calls over gRPC queue inside its core and come out one by one. They are turned away when the loop
is full, and when they have waited too long there: ``watchkeeper.serving.backlog`` finds out.
"""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from watchkeeper.contracts.record import Protocol, Shed
from watchkeeper.serving.metrics import Metrics
from watchkeeper.serving.spool import Spool

MESSAGE = "overloaded: more requests come than can be answered in time; try again in a second"
INTERVAL = 0.1  # seconds without a short delay that make a queue a standing one
IDLE = 0.05  # seconds in which nothing came: whatever stood is no queue any more
BURST = 100  # so many targets a delay may last while there is no standing queue
QUEUE = 16  # so many requests at once are no queue, however long each of them takes
# Of the newest in the cost of a request: a busy machine makes one dear, never cheap.
_RISE, _FALL = 0.02, 0.5


class Gate:
    """Decides from the queueing delay whether one more request is taken.

    ``target`` is the delay in seconds that a standing queue may have.
    """

    def __init__(self, target: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self._target = target
        self._clock = clock
        self._waiting = 0
        self._many = 0.0  # when last there were too many to be none
        self._answered = 0  # and whose time is not in the cost yet
        self._since = 0.0  # from when on that time counts
        self._cost = 0.0
        self._turned_away = -math.inf  # when last somebody was because of a standing queue
        self._short = self._left = clock()
        self.standing = False

    def full(self) -> bool:
        """Tell whether what waits already takes longer than the next request should wait."""
        if self._waiting <= QUEUE:
            return False
        wait = self._waiting * self._cost
        if not self.standing:
            return wait > BURST * self._target
        if wait <= self._target:
            return False
        self._turned_away = self._clock()
        return True

    def enter(self) -> float:
        """Count a request that has been read and waits; :meth:`leave` must follow.

        Returns its arrival, for both :meth:`late` and :meth:`leave`.
        """
        now = self._clock()
        if self._answered:
            self._learn()
        if not self._waiting:
            if now - self._left > IDLE:
                self._short, self.standing = now, False
            self._since = now
        self._waiting += 1
        if self._waiting > QUEUE:
            self._many = now
        return now

    def late(self, arrival: float) -> bool:
        """Tell whether a request waited so long that it is better turned away than answered.

        For those that nobody could judge by their first bytes, because they came in parts.
        """
        waited = self._clock() - arrival
        return self.standing and waited > max(self._target, QUEUE * self._cost)

    def leave(self, arrival: float) -> None:
        """Count a request that has got its answer, and learn from how long it took."""
        now = self._clock()
        self._waiting -= 1
        self._answered += 1
        self._left = now
        # While others are turned away, delays are short only because of that.
        if now - self._turned_away > INTERVAL and (
            now - arrival < self._target or arrival > self._many
        ):
            self._short = now
        self.standing = now - self._short > INTERVAL

    def _learn(self) -> None:
        """Learn what a request costs from those answered since the last one was taken in."""
        cost = (self._left - self._since) / self._answered
        weight = _RISE if 0 < self._cost < cost else _FALL
        self._cost += (cost - self._cost) * weight
        self._since, self._answered = self._left, 0


class Admission(NamedTuple):
    """The gate of a process, and who keeps the count of those it turned away."""

    gate: Gate
    turned_away: "TurnedAway"


class TurnedAway:
    """Counts who was turned away, and puts it into the spool: one line a protocol and report."""

    def __init__(self, model: str, version: int, spool: Spool, metrics: Metrics) -> None:
        self._model, self._version = model, version
        self._spool, self._metrics = spool, metrics
        self._counts: dict[Protocol, int] = {}
        self._since: dict[Protocol, float] = {}
        self._reported = time.time()

    def add(self, protocol: Protocol, count: int = 1) -> None:
        """Count."""
        if protocol not in self._counts:
            self._counts[protocol], self._since[protocol] = 0, self._reported
        self._counts[protocol] += count
        self._metrics.shed(protocol, count)

    def report(self) -> None:
        """Write down what was counted since the last report; what finds no room waits."""
        now = time.time()
        for protocol, count in list(self._counts.items()):
            line = Shed(self._model, self._version, protocol, count, self._since[protocol], now)
            if self._spool.write(msgspec.json.encode(line) + b"\n"):
                del self._counts[protocol]
        self._reported = now
