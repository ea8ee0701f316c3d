"""Storing events and reading them back. :mod:`watchkeeper.core.events` defines their types."""

import hashlib
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import Connection, Row, func, select

from watchkeeper.core.events import (
    Event,
    EventDetails,
    GatePassed,
    GateRejected,
    Promoted,
    RolledBack,
    RolloutStarted,
    StepFinished,
    Watched,
    WatchFailed,
    WatchRecovered,
    dump_details,
    kind_of,
    parse_details,
)
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.database import Ledger
from watchkeeper.ledger.idempotent_writes import TEXT_LENGTH, fit_text, insert_once

ID_LENGTH: Final = 160
READ_EVENTS: Final = 20  # of a version, to find one with a digest
# Their digest is the content of their version.
CONTENT_EVENTS: Final = (GatePassed, GateRejected, RolloutStarted, Promoted)
# The events of one turn of the rollout controller have the same time. In this order each of them
# can be the cause of those that follow.
CAUSES_FIRST: Final = (RolloutStarted, StepFinished, RolledBack, Promoted, Watched)


def emit(ledger: Ledger, event: Event) -> bool:
    """Store an event, unless an event with its id is stored.

    Returns:
        True if the event is new.

    Raises:
        SQLAlchemyError: the ledger does not answer; emit the same event again later.
    """
    with ledger.write() as connection:
        return emit_in(connection, event)


def emit_in(connection: Connection, event: Event) -> bool:
    """Store an event within the caller's transaction, see :func:`emit`."""
    values = {
        "id": _short(event.id),
        "model": event.model,
        "version": event.version,
        "kind": event.kind,
        "time": event.time,
        "reason": fit_text(event.reason, TEXT_LENGTH),
        "details": dump_details(event.details),
    }
    return insert_once(connection, t.events, values)


def history(
    ledger: Ledger,
    model: str,
    *,
    version: int | None = None,
    kind: type[EventDetails] | tuple[type[EventDetails], ...] = (),
    since: float = 0.0,
    limit: int = 1000,
) -> list[Event]:
    """Return the newest events of a model, oldest first.

    Of events with the same time, causes come before effects.

    Args:
        ledger: The ledger to read.
        model: The model.
        version: Only events about this version.
        kind: Only events with details of this type, or of one of these types::

                history(ledger, "pump-failure", kind=(Promoted, RolledBack))

        since: Only events with this time or a later one, in seconds since 1970.
        limit: The largest number of events.

    Raises:
        SQLAlchemyError: the ledger does not answer.
    """
    query = select(t.events).where(t.events.c.model == model, t.events.c.time >= since)
    if version is not None:
        query = query.where(t.events.c.version == version)
    if kinds := kind if isinstance(kind, tuple) else (kind,):
        query = query.where(t.events.c.kind.in_([kind_of(each) for each in kinds]))
    query = query.order_by(t.events.c.time.desc(), t.events.c.id.desc()).limit(limit)
    with ledger.read() as connection:
        return sorted((_event(row) for row in connection.execute(query)), key=_order)


def production_version(ledger: Ledger, model: str) -> int | None:
    """Return the version that was promoted last; None before the first promotion."""
    return last_promotion(ledger, model)[0]


def promoted_versions(ledger: Ledger, model: str) -> tuple[int, ...]:
    """Return the versions that were promoted, the last promotion first; one can occur again."""
    events = history(ledger, model, kind=Promoted)
    return tuple(event.version for event in reversed(events) if event.version is not None)


def last_promotion(ledger: Ledger, model: str) -> tuple[int | None, str]:
    """Return version and digest of the last promotion; None and "" before the first one.

    The digest is "" if it is not known.
    """
    for event in history(ledger, model, kind=Promoted, limit=1):
        if isinstance(event.details, Promoted):
            return event.version, event.details.digest
    return None, ""


def highest_version(ledger: Ledger, model: str) -> int:
    """Return the highest number of a version that any event is about; 0 without events."""
    query = select(func.max(t.events.c.version)).where(t.events.c.model == model)
    with ledger.read() as connection:
        return connection.execute(query).scalar_one() or 0


def first_digests(ledger: Ledger, model: str, versions: Iterable[int]) -> dict[int, str]:
    """Return the content that the numbers of versions stand for: the digest of the first event.

    Numbers without an event that has a digest are left out.
    """
    kinds = [kind_of(each) for each in CONTENT_EVENTS]
    e = t.events.c
    found: dict[int, str] = {}
    wanted = sorted(versions)
    if not wanted:
        return found
    with ledger.read() as connection:
        for version in wanted:
            query = (
                select(e.kind, e.details)
                .where(e.model == model, e.version == version, e.kind.in_(kinds))
                .order_by(e.time, e.id)
                .limit(READ_EVENTS)
            )
            for kind, values in connection.execute(query):
                digest = getattr(parse_details(kind, values), "digest", "")
                if digest:
                    found[version] = digest
                    break
    return found


def unresolved_watch_failure(ledger: Ledger, model: str, version: int) -> Event | None:
    """Return the event about a drift watch that fails; None if the watch works."""
    kinds = (WatchFailed, WatchRecovered)
    newest = history(ledger, model, version=version, kind=kinds, limit=2)
    recovered = {event.id for event in newest if isinstance(event.details, WatchRecovered)}
    failures = [event for event in newest if isinstance(event.details, WatchFailed)]
    # Both events may have the same time, so their ids decide.
    pending = [event for event in failures if f"{event.id}/recovered" not in recovered]
    return pending[-1] if pending else None


def _short(name: str) -> str:
    """Shorten an id to its column; different ids stay different."""
    if len(name) <= ID_LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:32]
    return f"{name[: ID_LENGTH - 33]}/{digest}"


def _order(event: Event) -> tuple[float, int, str]:
    details = type(event.details)
    return event.time, CAUSES_FIRST.index(details) if details in CAUSES_FIRST else -1, event.id


def _event(row: Row[Any]) -> Event:
    return Event(
        id=row.id,
        model=row.model,
        version=row.version,
        time=row.time,
        reason=row.reason,
        details=parse_details(row.kind, row.details),
    )
