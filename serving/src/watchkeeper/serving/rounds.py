"""Rounds: calls over gRPC that arrive together go their way together, one step after the other.

All of a round are answered by the model, then one write records them, then all answers leave.
gRPC's own code is large, and called for one call at a time: in rounds the code of a step stays in
the processor's caches, and a core answers half as many calls again. Nobody waits for a call that
is not there yet, but for the few turns of the event loop of :class:`Gathering`. HTTP comes in
rounds by itself, as the event loop reads all connections before it answers; its answers leave at
once, because requests that came in between would hide an overload from the gate.
"""

import asyncio

from watchkeeper.serving.metrics import Metrics
from watchkeeper.serving.spool import Spool

# From gRPC's queue to its message a call takes so many turns of the event loop: where there was no
# newcomer for as long, none is on its way. (grpc.aio accepts one call at a time.)
_TURNS = 6
_MOST = 64  # calls in a round, so that those who came first are not kept waiting for ever


class Records:
    """The records of a round, which are in the kernel's hands before its first answer leaves."""

    def __init__(self, spool: Spool, metrics: Metrics) -> None:
        self._spool = spool
        self._metrics = metrics
        self._lines: list[bytes] = []
        self._since = 0.0

    def add(self, line: bytes, time: float) -> None:
        """Take the record of a request that arrived at ``time``, in seconds since 1970."""
        if not self._lines:
            self._since = time
            asyncio.get_running_loop().call_soon(self.write)
        self._lines.append(line)

    async def written(self) -> None:
        """Wait until everything that was added has been written.

        The event loop calls in the order in which it was asked to, and it was asked to write
        before any of those who added wait here: one turn is enough.
        """
        await asyncio.sleep(0)

    def write(self) -> None:
        """Write what was added; what finds no room is counted."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        kept = self._spool.write(lines)
        self._metrics.records.inc(kept)
        if kept < len(lines):
            self._spool.lose(len(lines) - kept, self._since)
            self._metrics.lost.inc(len(lines) - kept)


class Gathering:
    """Where calls over gRPC wait for those right behind them."""

    def __init__(self) -> None:
        self._waiting = 0
        self._gathered = asyncio.Event()

    async def join(self) -> None:
        """Wait until the round begins."""
        self._waiting += 1
        if self._waiting == 1:
            asyncio.get_running_loop().call_soon(self._look, 1, 0)
        await self._gathered.wait()

    def _look(self, seen: int, turns: int) -> None:
        turns = turns + 1 if self._waiting == seen else 0
        if turns < _TURNS and self._waiting < _MOST:
            asyncio.get_running_loop().call_soon(self._look, self._waiting, turns)
            return
        self._waiting = 0
        self._gathered.set()
        self._gathered = asyncio.Event()
