"""How far the spools of a model are shipped, and spools whose sidecar is silent."""

from collections.abc import Iterable

import msgspec
from sqlalchemy import Connection, or_, select, update

from watchkeeper.core.events import Event, SpoolAbandoned
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.database import Ledger
from watchkeeper.ledger.events import emit_in
from watchkeeper.ledger.idempotent_writes import run_transaction


class SpoolState(msgspec.Struct, frozen=True):
    """How far a spool is shipped. All times are in seconds since 1970.

    Attributes:
        id: The spool's identity, see :func:`watchkeeper.core.spool.identity`.
        model: The model whose server writes the spool.
        version: The version of that server.
        shipped_until: Every record with an earlier time is in the ledger.
        lost: The number of records that the spool could not hold or the sidecar could not read.
        closed: The spool is shipped to its end, or abandoned.
        seen: When the sidecar wrote this row, by its own clock. A sidecar that is alive changes it
            every few seconds.
        digest: The content of the version, see :func:`watchkeeper.core.version.digest`; None while
            the sidecar does not know it.
    """

    id: str
    model: str
    version: int
    shipped_until: float
    lost: int = 0
    closed: bool = False
    seen: float = 0.0
    digest: str | None = None


def open_spools(ledger: Ledger, model: str) -> list[SpoolState]:
    """Return the spools of a model that are not closed."""
    s = t.spools.c
    query = select(t.spools).where(s.model == model, s.closed.is_(False)).order_by(s.id)
    with ledger.read() as connection:
        return [SpoolState(**row._mapping) for row in connection.execute(query)]


def last_seen(ledger: Ledger, spool: str) -> float | None:
    """Return when the sidecar of a spool last wrote, by its clock; None for an unknown spool."""
    s = t.spools.c
    with ledger.read() as connection:
        return connection.execute(select(s.seen).where(s.id == spool)).scalar_one_or_none()


def shipped_until(ledger: Ledger, model: str, versions: Iterable[int]) -> float | None:
    """Return the time up to which all records of some versions are in the ledger.

    Closed spools do not count: nothing more is expected from them.

    Returns:
        Seconds since 1970; infinity if all spools are closed; None if a version has no spool yet.
    """
    wanted = set(versions)
    s = t.spools.c
    query = select(s.version, s.shipped_until, s.closed).where(
        s.model == model, or_(*(s.version == version for version in wanted))
    )
    with ledger.read() as connection:
        rows = connection.execute(query).all()
    if {row.version for row in rows} != wanted:
        return None
    return min((row.shipped_until for row in rows if not row.closed), default=float("inf"))


def abandon_spool(ledger: Ledger, spool: SpoolState, now: float, silent_seconds: float) -> bool:
    """Close the spool of a silent sidecar and write an event.

    Rollouts wait until the spools of a version are shipped. They must not wait for a sidecar that
    is gone. The next write of the sidecar opens the spool again.

    Args:
        ledger: The ledger.
        spool: The spool as it was read. If it has changed since then, it stays open.
        now: The time of the event, in seconds since 1970.
        silent_seconds: How long the sidecar has been silent, for the reason of the event.

    Returns:
        True if the spool is closed now; False if its sidecar has written meanwhile.
    """
    s = t.spools.c

    def close(connection: Connection) -> bool:
        unchanged = (
            s.id == spool.id,
            s.closed.is_(False),
            s.seen == spool.seen,
            s.shipped_until == spool.shipped_until,
        )
        if not connection.execute(update(t.spools).where(*unchanged).values(closed=True)).rowcount:
            return False
        emit_in(connection, _abandoned(spool, now, silent_seconds))
        return True

    return run_transaction(ledger, close)


def _abandoned(spool: SpoolState, now: float, silent_seconds: float) -> Event:
    return Event(
        id=f"{spool.model}/spool/{spool.id}/abandoned/{spool.seen:.3f}",
        model=spool.model,
        version=spool.version,
        time=now,
        reason=f"the sidecar of a spool of version {spool.version} has been silent for "
        f"{silent_seconds:.0f} s; the spool is closed",
        details=SpoolAbandoned(**msgspec.structs.asdict(spool)),
    )
