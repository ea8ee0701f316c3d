"""Events: what was decided, from what, and with which policy values.

Their ids are deterministic, so that whoever is unsure emits again until it is stored.
"""

import hashlib
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, select

from watchkeeper.ledger import tables as t
from watchkeeper.ledger.database import Ledger
from watchkeeper.ledger.once import TEXT, clean, store_new

ID_LENGTH = 160
# What one turn of the rollout tells has one time; there, each of these can be the reason for those
# that follow it.
CHAIN = ("begun", "step", "rolled-back", "promoted", "watched")


class Event(msgspec.Struct, frozen=True):
    """One decision. ``id`` follows from what it is about, never from chance or the clock.

    The kinds that others read: training writes ``gate-passed`` and ``gate-rejected`` (details:
    run, episode), rollout writes ``step`` (details: percent, verdict), ``promoted`` (details:
    replaces) and ``rolled-back``, the sidecar writes the states of its episodes.
    """

    id: str
    model: str
    version: int | None
    kind: str
    time: float
    reason: str
    details: dict[str, Any] = {}


def emit(ledger: Ledger, event: Event) -> bool:
    """Store an event unless it is; return whether it was new."""
    with ledger.begin() as connection:
        return emit_in(connection, event)


def emit_in(connection: Connection, event: Event) -> bool:
    """Store an event within the caller's transaction, see :func:`emit`."""
    values = msgspec.structs.asdict(event)
    reason = clean(event.reason, TEXT)
    return store_new(connection, t.events, {**values, "id": _short(event.id), "reason": reason})


def history(
    ledger: Ledger,
    model: str,
    *,
    version: int | None = None,
    kind: str | tuple[str, ...] = (),
    since: float = 0.0,
    limit: int = 1000,
) -> list[Event]:
    """Return the newest ``limit`` events of a model that fit, oldest first.

    Of those of one time causes come before effects.
    """
    query = select(t.events).where(t.events.c.model == model, t.events.c.time >= since)
    if version is not None:
        query = query.where(t.events.c.version == version)
    if kinds := (kind,) if isinstance(kind, str) else kind:
        query = query.where(t.events.c.kind.in_(kinds))
    query = query.order_by(t.events.c.time.desc(), t.events.c.id.desc()).limit(limit)
    with ledger.read() as connection:
        return sorted((_event(row) for row in connection.execute(query)), key=_place)


def production_version(ledger: Ledger, model: str) -> int | None:
    """Return the version that was promoted last, as the ledger has it."""
    promoted = history(ledger, model, kind="promoted", limit=1)
    return promoted[-1].version if promoted else None


def _short(name: str) -> str:
    """Return a name that the column holds, and that is still another one for another event."""
    if len(name) <= ID_LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:32]
    return f"{name[: ID_LENGTH - 33]}/{digest}"


def _place(event: Event) -> tuple[float, int, str]:
    return event.time, CHAIN.index(event.kind) if event.kind in CHAIN else -1, event.id


def _event(row: Row[Any]) -> Event:
    return Event(**row._mapping)
