"""What went with a spool: a pod that is deleted by force takes what was not shipped with it.

How many records that were nobody can know: what was in the spool is gone, and what the ledger has
says nothing of it. What can be told is between when they lie, when the sidecar was last heard of,
and how many requests came just before. Each spool that was given up is told of once, as
``spool-lost``; if it comes back, ``spool-found`` takes that back.
"""

import math
from datetime import UTC, datetime

from sqlalchemy import select

from watchkeeper.drift.ship import IDLE_SECONDS
from watchkeeper.ledger import Ledger
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.events import Event, emit, history
from watchkeeper.ledger.observations import request_sizes

BEFORE_SECONDS = 60.0  # over which the requests before are counted
MOST = 5000  # of them are looked at


class LostTails:
    """Tells what may have been lost with the spools of a model that were given up."""

    def __init__(self, ledger: Ledger, model: str) -> None:
        self._ledger = ledger
        self._model = model
        self._told: set[str] = set()  # events known to be stored: saves asking every turn

    def turn(self, silent_seconds: float, pause: float) -> None:
        """Tell what is not told yet of spools that were given up after ``silent_seconds``.

        A sidecar that lives writes at least every ``pause`` seconds.

        Raises:
            SQLAlchemyError: the ledger does not answer; call again later.
        """
        for given_up in history(self._ledger, self._model, kind="spool-abandoned"):
            if f"{given_up.id}/lost" not in self._told:
                latest = max(given_up.details["seen"], given_up.time - silent_seconds + pause)
                self._emit(_lost(self._ledger, given_up, latest))
            if f"{given_up.id}/found" not in self._told:
                again = self._seen(given_up.details["id"])
                if again is not None and again != given_up.details["seen"]:
                    self._emit(_found(given_up, again))

    def _emit(self, event: Event) -> None:
        emit(self._ledger, event)
        self._told.add(event.id)

    def _seen(self, spool: str) -> float | None:
        s = t.spools.c
        with self._ledger.read() as connection:
            return connection.execute(select(s.seen).where(s.id == spool)).scalar_one_or_none()


def _lost(ledger: Ledger, given_up: Event, latest: float) -> Event:
    """Tell of the interval: from what is surely in the ledger to when the spool surely was gone."""
    spool, version = given_up.details, given_up.version or 0
    since, heard = spool["shipped_until"], spool["seen"]
    rate = _rate(ledger, given_up.model, version, since)
    # A sidecar that is well writes so often: had it lived longer, it would have been heard of.
    likely = math.ceil(rate * (heard + 2 * IDLE_SECONDS - since)) if since else None
    about = (
        f"; if it ended when it fell silent, these are at most about {likely} records"
        if likely is not None
        else ""
    )
    return Event(
        id=f"{given_up.id}/lost",
        model=given_up.model,
        version=version,
        kind="spool-lost",
        time=given_up.time,
        reason=f"what one server of version {version} was asked between {_clock(since)} and "
        f"{_clock(latest)} may be missing in the ledger: its sidecar was last heard of at "
        f"{_clock(heard)}{about}",
        details={
            "spool": spool["id"],
            "since": since,
            "until": latest,
            "heard": heard,
            "requests_per_second": rate,
            "likely_at_most": likely,
        },
    )


def _found(given_up: Event, again: float) -> Event:
    return Event(
        id=f"{given_up.id}/found",
        model=given_up.model,
        version=given_up.version,
        kind="spool-found",
        time=max(again, given_up.time),
        reason=f"the sidecar of a spool of version {given_up.version} that was given up is heard "
        "of again: its records count, and what was told to be lost is not",
        details={"spool": given_up.details["id"], "seen": again},
    )


def _rate(ledger: Ledger, model: str, version: int, before: float) -> float:
    """Return how many requests a second all servers of a version had together before a time."""
    newest = request_sizes(
        ledger, model, version, MOST, after=before - BEFORE_SECONDS, until=before, newest=True
    )
    if not newest:
        return 0.0
    span = before - newest[-1][0] if len(newest) == MOST else BEFORE_SECONDS
    return round(len(newest) / max(span, 1.0), 3)


def _clock(seconds: float) -> str:
    if not seconds:
        return "its start"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-5] + " UTC"
