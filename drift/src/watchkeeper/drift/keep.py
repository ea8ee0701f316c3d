"""Keeping the ledger: what is asked to be forgotten goes, what is too old goes, and spools whose
sidecar died keep nobody waiting. A small batch a turn; several keepers at once do no harm.
"""

import logging
import time
from collections.abc import Callable

from watchkeeper.contracts.policies import RetentionPolicy
from watchkeeper.drift.lost import LostTails
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.deletions import carry_out
from watchkeeper.ledger.newest import Newest
from watchkeeper.ledger.retention import cut, remove_batch, tell_removals
from watchkeeper.ledger.spools import abandon, open_spools
from watchkeeper.ledger.store import SpoolState

LOOK_SECONDS = 60.0  # how often old rows and silent spools are looked for
SILENT_SECONDS = 300.0
PAUSE_SECONDS = 30.0  # a living sidecar writes every second, or so often while it is in trouble
JUMP_SECONDS = 60.0  # a clock that differs so much from one look to the next was set
DISTRUST_SECONDS = 86400.0  # how long a clock that was set says nothing about age
LATE_SECONDS = 60.0  # what is so old is in the ledger, nearly always: it is counted once

log = logging.getLogger(__name__)


def steady_clock() -> float:
    """Tell the seconds since the machine started, suspended or not; nobody sets this clock."""
    # Linux stops its monotonic clock while the machine is suspended, others do not.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Keeper:
    """Keeps one model's ledger; everything it must remember is in the ledger.

    What it has seen of other spools is only in memory: they are given up when they were silent
    while *this* process could see it, by a clock that nobody sets. So neither an outage of the
    ledger nor a wrong clock closes the spool of a living sidecar.
    """

    def __init__(
        self,
        ledger: Ledger,
        model: str,
        policy: RetentionPolicy,
        *,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = steady_clock,
        silent_seconds: float = SILENT_SECONDS,
    ) -> None:
        self._ledger = ledger
        self._model = model
        self._policy = policy
        self._clock = clock
        self._steady = steady
        self._silent_seconds = silent_seconds
        self._heard: dict[str, tuple[SpoolState, float]] = {}
        self._looked: float | None = None
        self._offset = clock() - steady()
        self._trusted = steady()
        self._before: float | None = None
        self._newest = Newest(ledger, model, policy.predictions)
        self._lost = LostTails(ledger, model)

    def turn(self) -> bool:
        """Do one batch of what is due; True when there is more to do at once.

        Raises:
            SQLAlchemyError: the ledger does not answer; call again later.
        """
        more = carry_out(self._ledger, self._model, self._clock())
        now = self._steady()
        if self._looked is None or now - self._looked >= LOOK_SECONDS:
            self._listen(now)
            self._lost.turn(self._silent_seconds, PAUSE_SECONDS)
            self._before = self._cut(now)
            tell_removals(self._ledger, self._model, self._policy, self._clock())
            self._looked = now
        if self._before is not None:
            removed = remove_batch(self._ledger, self._model, self._before, self._clock())
            if removed.any():
                return True
            self._before = None
        return more

    def _cut(self, now: float) -> float | None:
        """Return the time before which rows go; None while the clock is not to be trusted."""
        offset = self._clock() - now
        if abs(offset - self._offset) > JUMP_SECONDS:
            log.warning(
                "the clock was set by %.0f s: nothing is removed for its age for a day",
                offset - self._offset,
            )
            self._trusted = now + DISTRUST_SECONDS
        self._offset = offset
        if now < self._trusted:
            return None
        wall = self._clock()
        by_count = self._newest.since(wall - LATE_SECONDS)
        return cut(self._ledger, self._model, self._policy, wall, by_count)

    def _listen(self, now: float) -> None:
        """Give up spools that were silent for too long while this process was listening."""
        if self._looked is None or now - self._looked > 2 * LOOK_SECONDS:
            self._heard = {}  # deaf for a while: whoever was silent then may have been, too
        heard: dict[str, tuple[SpoolState, float]] = {}
        for spool in open_spools(self._ledger, self._model):
            before, since = self._heard.get(spool.id, (spool, now))
            heard[spool.id] = (spool, since if before == spool else now)
            silent = now - heard[spool.id][1]
            if silent >= self._silent_seconds and abandon(
                self._ledger, spool, self._clock(), silent
            ):
                log.warning("spool %s of version %d is given up", spool.id, spool.version)
        self._heard = heard
