"""Gaps: requests without a record, because the spool was full or the server was overloaded."""

from collections.abc import Sequence
from typing import Literal

import msgspec
from sqlalchemy import Connection, func, select

from watchkeeper.ledger import tables as t
from watchkeeper.ledger.database import Ledger
from watchkeeper.ledger.idempotent_writes import insert_once

GapKind = Literal["lost", "shed"]


class StoredGap(msgspec.Struct, frozen=True):
    """``count`` requests between ``since`` and ``until``, in seconds since 1970.

    ``kind`` is "lost" (the spool was full) or "shed" (the server rejected them). ``spool``,
    ``segment`` and ``position`` are the place of the line that reports the gap: a line counts once.
    """

    spool: str
    segment: int
    position: int
    model: str
    version: int
    kind: GapKind
    protocol: str
    count: int
    since: float
    until: float


def store_gaps(connection: Connection, gaps: Sequence[StoredGap]) -> None:
    """Store gaps. Storing one twice changes nothing."""
    for gap in gaps:
        insert_once(connection, t.gaps, msgspec.structs.asdict(gap))


def count_gaps(ledger: Ledger, model: str, *, since: float = 0.0) -> dict[str, int]:
    """Count the requests without a record by kind, in gaps that end at ``since`` or later."""
    g = t.gaps.c
    query = select(g.kind, func.sum(g["count"])).where(g.model == model, g.until >= since)
    with ledger.read() as connection:
        found = {kind: int(count) for kind, count in connection.execute(query.group_by(g.kind))}
    return {"lost": 0, "shed": 0, **found}
