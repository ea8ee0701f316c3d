"""Failures of the watch: counted here, and visible in status, history, metrics and ``/drift``.

One failed turn is usual while a server restarts. Several in a row mean that nobody looks for drift.
Then an event ``watch-failed`` is stored, and an event ``watch-recovered`` when windows are examined
again.
"""

import logging
import time
from collections.abc import Callable

from watchkeeper.core.events import Event, WatchFailed, WatchRecovered
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.errors import LedgerError
from watchkeeper.ledger.events import emit, unresolved_watch_failure

FAILURES = 5  # in a row; with the back-off of the sidecar about half a minute

log = logging.getLogger(__name__)


class WatchFailures:
    """The failures of the watch over one version. ``error`` is empty while the watch works."""

    def __init__(
        self,
        ledger: Ledger,
        model: str,
        version: int,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.error = ""
        self._ledger = ledger
        self._model, self._version = model, version
        self._clock = clock
        self._count = 0
        self._since = 0.0
        self._stored = False

    def failed(self, error: Exception) -> None:
        """Count a failed turn, and store an event after several in a row."""
        self._since = self._since if self._count else self._clock()
        self._count += 1
        self.error = " ".join(f"{type(error).__name__}: {error}".split())
        if self._count < FAILURES or self._stored:
            return
        try:
            if unresolved_watch_failure(self._ledger, self._model, self._version) is None:
                emit(self._ledger, self._failure())
            self._stored = True
        except LedgerError as failure:  # often the ledger is the reason; the next turn tries again
            log.warning("the failure of the watch is not stored: %s", failure)

    def works(self, *, watching: bool) -> None:
        """Forget the failures. ``watching`` is True on the sidecar that has examined windows.

        Raises:
            LedgerError: the ledger does not answer.
        """
        self.error, self._count, self._stored = "", 0, False
        if not watching:
            return
        failure = unresolved_watch_failure(self._ledger, self._model, self._version)
        if failure is not None:
            emit(self._ledger, self._recovery(failure))

    def _failure(self) -> Event:
        return Event(
            id=f"{self._model}/v{self._version}/watch-failed/{self._since:.3f}",
            model=self._model,
            version=self._version,
            time=self._clock(),
            reason=f"the drift watch of version {self._version} fails, no window is examined: "
            f"{self.error}",
            details=WatchFailed(error=self.error, since=self._since),
        )

    def _recovery(self, failure: Event) -> Event:
        return Event(
            id=f"{failure.id}/recovered",
            model=self._model,
            version=self._version,
            time=max(self._clock(), failure.time),
            reason=f"the drift watch of version {self._version} works again",
            details=WatchRecovered(),
        )
