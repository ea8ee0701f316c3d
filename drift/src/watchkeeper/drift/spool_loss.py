"""Report records that may be lost with a spool.

A pod that is deleted by force takes the records that it has not shipped with it. Their number
cannot be known. What can be known is the interval in which they lie, when the sidecar last wrote to
the ledger, and the rate of requests before. For every spool that was abandoned there is one event
``spool-lost``. If the sidecar writes again, an event ``spool-found`` withdraws it.
"""

import math
from datetime import UTC, datetime

from watchkeeper.core.events import Event, SpoolAbandoned, SpoolFound, SpoolLost
from watchkeeper.drift.ship import IDLE_WRITE_SECONDS
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import emit, history
from watchkeeper.ledger.observations import request_sizes
from watchkeeper.ledger.spools import last_seen

RATE_SECONDS = 60.0  # the rate of requests is measured over so long
MAXIMUM_RATE_REQUESTS = 5000  # and over at most so many requests


class SpoolLossReporter:
    """Emits the events about the abandoned spools of a model."""

    def __init__(self, ledger: Ledger, model: str) -> None:
        self._ledger = ledger
        self._model = model
        self._emitted: set[str] = set()  # ids of stored events: saves a query each time

    def report(self, silent_seconds: float, write_seconds: float) -> None:
        """Emit the events that are due.

        Args:
            silent_seconds: after how long without a write a spool is abandoned.
            write_seconds: how often a sidecar writes at least, also while it has errors.

        Raises:
            LedgerError: the ledger does not answer; call again later.
        """
        for event in history(self._ledger, self._model, kind=SpoolAbandoned):
            spool = event.details
            if not isinstance(spool, SpoolAbandoned):
                continue  # written by another release in a form that this one cannot read
            if f"{event.id}/lost" not in self._emitted:
                latest_end = max(spool.seen, event.time - silent_seconds + write_seconds)
                self._emit(_lost(self._ledger, event, spool, latest_end))
            if f"{event.id}/found" not in self._emitted:
                seen = last_seen(self._ledger, spool.id)
                if seen is not None and seen != spool.seen:
                    self._emit(_found(event, spool, seen))

    def _emit(self, event: Event) -> None:
        emit(self._ledger, event)
        self._emitted.add(event.id)


def _lost(ledger: Ledger, abandoned: Event, spool: SpoolAbandoned, latest_end: float) -> Event:
    """Return the event about the time between the last shipped record and the end of the spool."""
    version = spool.version
    since, seen = spool.shipped_until, spool.seen
    rate = _requests_per_second(ledger, abandoned.model, version, since)
    # A healthy sidecar writes every IDLE_WRITE_SECONDS: if it had lived longer, it had written.
    requests = rate * (seen + 2 * IDLE_WRITE_SECONDS - since)
    likely = math.ceil(requests) if since and math.isfinite(requests) else None
    estimate = (
        f"; about {likely} records at most, if the sidecar ended after this write"
        if likely is not None
        else ""
    )
    return Event(
        id=f"{abandoned.id}/lost",
        model=abandoned.model,
        version=version,
        time=abandoned.time,
        reason=f"requests to one server of version {version} between {_utc(since)} and "
        f"{_utc(latest_end)} may be missing in the ledger: its sidecar last wrote at "
        f"{_utc(seen)}{estimate}",
        details=SpoolLost(
            spool=spool.id,
            since=since,
            until=latest_end,
            heard=seen,
            requests_per_second=rate,
            likely_at_most=likely,
        ),
    )


def _found(abandoned: Event, spool: SpoolAbandoned, seen: float) -> Event:
    return Event(
        id=f"{abandoned.id}/found",
        model=abandoned.model,
        version=abandoned.version,
        time=max(seen, abandoned.time),
        reason=f"the sidecar of an abandoned spool of version {abandoned.version} writes again: "
        "its records are not lost",
        details=SpoolFound(spool=spool.id, seen=seen),
    )


def _requests_per_second(ledger: Ledger, model: str, version: int, before: float) -> float:
    """Return the rate of requests to all servers of a version before a record time."""
    newest = request_sizes(
        ledger,
        model,
        version,
        MAXIMUM_RATE_REQUESTS,
        after=before - RATE_SECONDS,
        until=before,
        newest_first=True,
        synthetic=True,
    )
    if not newest:
        return 0.0
    complete = len(newest) < MAXIMUM_RATE_REQUESTS
    seconds = RATE_SECONDS if complete else before - newest[-1][0]
    return round(len(newest) / max(seconds, 1.0), 3)


def _utc(seconds: float) -> str:
    if not seconds:
        return "its start"
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-5] + " UTC"
    except (OverflowError, ValueError, OSError):  # a clock may write any time
        return f"{seconds:g} s since 1970"
