"""Spools whose sidecar went without a word: nobody may wait for them for ever."""

import msgspec
from sqlalchemy import Connection, select, update

from watchkeeper.ledger import tables as t
from watchkeeper.ledger.database import Ledger
from watchkeeper.ledger.events import Event, emit_in
from watchkeeper.ledger.once import in_one_transaction
from watchkeeper.ledger.store import SpoolState


def open_spools(ledger: Ledger, model: str) -> list[SpoolState]:
    """Return the spools of a model that are not shipped to their end."""
    s = t.spools.c
    query = select(t.spools).where(s.model == model, s.closed.is_(False)).order_by(s.id)
    with ledger.read() as connection:
        return [SpoolState(**row._mapping) for row in connection.execute(query)]


def abandon(ledger: Ledger, spool: SpoolState, now: float, silent: float) -> bool:
    """Close a spool if it is still as it was seen; its sidecar's next write opens it again.

    ``silent`` is for how many seconds nothing was heard of it. False when there was news.
    """
    s = t.spools.c

    def close(connection: Connection) -> bool:
        same = (s.id == spool.id, s.closed.is_(False), s.seen == spool.seen)
        closed = update(t.spools).where(*same, s.shipped_until == spool.shipped_until)
        if not connection.execute(closed.values(closed=True)).rowcount:
            return False
        emit_in(
            connection,
            Event(
                id=f"{spool.model}/spool/{spool.id}/abandoned/{spool.seen:.3f}",
                model=spool.model,
                version=spool.version,
                kind="spool-abandoned",
                time=now,
                reason=f"nothing was heard for {silent:.0f} s of the sidecar of a spool of version "
                f"{spool.version}: nobody waits for the rest of it any more",
                details=msgspec.to_builtins(spool),
            ),
        )
        return True

    return in_one_transaction(ledger, close)
