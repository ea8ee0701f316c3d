"""Overload: when a request is turned away unread, and how that is told afterwards.

Queueing delay decides, as in CoDel (K. Nichols and V. Jacobson, "Controlling Queue Delay", ACM
Queue 10(5), 2012; RFC 8289) in its form for servers (B. Maurer, "Fail at Scale", ACM Queue 13(8),
2015). The queue is what the event loop has read and not yet answered: it reads all that has
come, answers it, and meanwhile the next round gathers in the kernel. So the length of a round is
the delay of what comes during it. Rounds may be long for a moment, because bursts pass; once none
has been short for an interval there is a standing queue, which helps nobody: then no more is
taken into a round than can be answered within the target.

Calls over gRPC queue inside its core and come out one by one. They are turned away when the loop
is full, and when they have waited too long there: ``watchkeeper.serving.backlog`` finds out.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from watchkeeper.contracts.record import Protocol, Shed
from watchkeeper.serving.metrics import Metrics
from watchkeeper.serving.spool import Spool

MESSAGE = "overloaded: more requests come than can be answered in time; try again in a second"
INTERVAL = 0.1  # seconds without a short round that make a queue a standing one
IDLE = 0.05  # seconds in which nothing came: whatever stood is no queue any more
BURST = 100  # so many targets a round may last while there is no standing queue
QUEUE = 16  # so many requests at once are no queue, however long each of them takes
# Of the newest round in the cost of a request: a busy machine makes one dear, never cheap.
_RISE, _FALL = 0.02, 0.5


class Gate:
    """Decides from the queueing delay whether one more request is taken.

    ``target`` is the delay in seconds that a standing queue may have.
    """

    def __init__(self, target: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self._target = target
        self._clock = clock
        self._waiting = 0
        self._taken = 0
        self._began = 0.0
        self._left = 0.0  # when the first of a round got its answer
        self._cost = 0.0
        self._short = self._idle = clock()
        self.standing = False

    def full(self) -> bool:
        """Tell whether what waits already takes longer than the next request should wait."""
        return self._waiting > QUEUE and self._waiting * self._cost > (
            self._target if self.standing else BURST * self._target
        )

    def enter(self) -> float:
        """Count a request that has been read and waits; :meth:`leave` must follow.

        Returns its arrival, for :meth:`late`.
        """
        now = self._clock()
        if not self._waiting:
            if now - self._idle > IDLE:
                self._short, self.standing = now, False
            self._began = now
            self._taken = 0
            self._left = 0.0
        self._waiting += 1
        self._taken += 1
        return now

    def late(self, arrival: float) -> bool:
        """Tell whether a request waited so long that it is better turned away than answered.

        For those that nobody could judge by their first bytes, because they came in parts.
        """
        waited = self._clock() - arrival
        return self.standing and waited > max(self._target, QUEUE * self._cost)

    def leave(self) -> None:
        """Count a request that has got its answer, and measure the round if it was the last."""
        self._waiting -= 1
        if self._waiting and self._left:
            return
        now = self._clock()
        if not self._left:
            self._left = now
        if self._waiting:
            return
        delay = now - self._began
        if self._taken > 1:
            # From one answer to the next: the round itself also turns others away.
            cost = (now - self._left) / (self._taken - 1)
            weight = _RISE if 0 < self._cost < cost else _FALL
            self._cost += (cost - self._cost) * weight
        if self._taken <= QUEUE or delay < self._target:
            self._short = now
        self.standing = now - self._short > INTERVAL
        self._idle = now


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
            if self._spool.write([msgspec.json.encode(line) + b"\n"]):
                del self._counts[protocol]
        self._reported = now
