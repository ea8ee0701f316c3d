"""Retention: what the watching sidecar does for the ledger of its model.

It deletes subjects on request, removes rows that are too old, and abandons spools whose sidecar has
died, so that nothing waits for them. Each call removes one small batch. Several sidecars may do
this at the same time.
"""

import logging
import time
from collections.abc import Callable

from watchkeeper.core.policies import RetentionPolicy
from watchkeeper.drift.backoff import MAXIMUM_SECONDS as MAXIMUM_BACKOFF_SECONDS
from watchkeeper.drift.spool_loss import SpoolLossReporter
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.count_limit import CountLimit
from watchkeeper.ledger.deletions import process_deletions
from watchkeeper.ledger.retention import emit_removal_events, remove_batch, retention_cutoff
from watchkeeper.ledger.spools import SpoolState, abandon_spool, open_spools

CHECK_SECONDS = 60.0  # how often this looks for old rows and silent spools
SILENT_SECONDS = 300.0  # without a write: then the sidecar of a spool is considered dead
CLOCK_STEP_SECONDS = 60.0  # a wall clock that differs by more from one check to the next was set
CLOCK_STEP_PAUSE_SECONDS = 86400.0  # for so long nothing is removed by its age after such a step
# Nearly all records up to this age are in the ledger. Later ones are counted once a day.
SETTLED_SECONDS = 60.0

log = logging.getLogger(__name__)


def boot_clock() -> float:
    """Return the seconds since the machine started, including suspension. Nobody can set it."""
    # The monotonic clock of Linux stops during suspension; that of other systems does not.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Retention:
    """Retention for the ledger of one model.

    Its state is in the ledger, except what it has seen of the spools of other sidecars. A spool is
    abandoned if it was silent while *this* process was able to see it, by a clock that nobody can
    set. So neither an outage of the ledger nor a wrong clock closes the spool of a living sidecar.
    """

    def __init__(
        self,
        ledger: Ledger,
        model: str,
        policy: RetentionPolicy,
        *,
        wall_clock: Callable[[], float] = time.time,
        boot_clock: Callable[[], float] = boot_clock,
        silent_seconds: float = SILENT_SECONDS,
    ) -> None:
        """Create it.

        Args:
            ledger: the ledger.
            model: the model.
            policy: the policy in force.
            wall_clock: returns the time, seconds since 1970.
            boot_clock: returns seconds of a clock that nobody can set.
            silent_seconds: after how long without a write a spool is abandoned.
        """
        self._ledger = ledger
        self._model = model
        self._policy = policy
        self._wall_clock = wall_clock
        self._boot_clock = boot_clock
        self._silent_seconds = silent_seconds
        # Of each open spool: its last state, and since when (boot clock) it has not changed.
        self._unchanged: dict[str, tuple[SpoolState, float]] = {}
        self._last_check: float | None = None
        self._clock_offset = wall_clock() - boot_clock()
        self._removal_starts = boot_clock()
        self._remove_before: float | None = None
        self._count_limit = CountLimit(ledger, model, policy.predictions)
        self._losses = SpoolLossReporter(ledger, model)

    def run_once(self) -> bool:
        """Do one batch of what is due; return True if there is more.

        Raises:
            LedgerError: the ledger does not answer; call again later.
        """
        more = process_deletions(self._ledger, self._model, self._wall_clock())
        now = self._boot_clock()
        if self._last_check is None or now - self._last_check >= CHECK_SECONDS:
            self._abandon_silent_spools(now)
            self._losses.report(self._silent_seconds, MAXIMUM_BACKOFF_SECONDS)
            self._remove_before = self._removal_cutoff(now)
            emit_removal_events(self._ledger, self._model, self._policy, self._wall_clock())
            self._last_check = now
        if self._remove_before is not None:
            removed = remove_batch(
                self._ledger, self._model, self._remove_before, self._wall_clock()
            )
            if removed.any():
                return True
            self._remove_before = None
        return more

    def _removal_cutoff(self, now: float) -> float | None:
        """Return the time before which rows are removed; None while the clock is not trusted."""
        offset = self._wall_clock() - now
        step = offset - self._clock_offset
        if abs(step) > CLOCK_STEP_SECONDS:
            log.warning(
                "the clock was set by %.0f s; for a day nothing is removed because of its age", step
            )
            self._removal_starts = now + CLOCK_STEP_PAUSE_SECONDS
        self._clock_offset = offset
        if now < self._removal_starts:
            return None
        wall = self._wall_clock()
        by_count = self._count_limit.oldest_retained(wall - SETTLED_SECONDS)
        return retention_cutoff(self._ledger, self._model, self._policy, wall, by_count)

    def _abandon_silent_spools(self, now: float) -> None:
        """Close spools that have not changed for too long while this process was watching them."""
        if self._last_check is None or now - self._last_check > 2 * CHECK_SECONDS:
            self._unchanged = {}  # what happened since the last check is not known
        unchanged: dict[str, tuple[SpoolState, float]] = {}
        for spool in open_spools(self._ledger, self._model):
            last_state, since = self._unchanged.get(spool.id, (spool, now))
            unchanged[spool.id] = (spool, since if last_state == spool else now)
            silent = now - unchanged[spool.id][1]
            if silent >= self._silent_seconds and abandon_spool(
                self._ledger, spool, self._wall_clock(), silent
            ):
                log.warning(
                    "spool %s of version %d is abandoned: no write for %.0f s",
                    spool.id,
                    spool.version,
                    silent,
                )
        self._unchanged = unchanged
