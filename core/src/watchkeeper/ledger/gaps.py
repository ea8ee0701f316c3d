"""Gaps: requests that have no record of their own, because the spool was full or under overload."""

from collections.abc import Sequence
from typing import Literal

import msgspec
from sqlalchemy import Connection, func, select

from watchkeeper.ledger import tables as t
from watchkeeper.ledger.database import Ledger
from watchkeeper.ledger.once import store_new

Kind = Literal["lost", "shed"]


class StoredGap(msgspec.Struct, frozen=True):
    """``count`` requests of which nothing is known but when, seconds since 1970.

    ``spool``, ``segment`` and ``position`` say where it was reported: a line is counted once.
    """

    spool: str
    segment: int
    position: int
    model: str
    version: int
    kind: Kind
    protocol: str
    count: int
    since: float
    until: float


def store_gaps(connection: Connection, gaps: Sequence[StoredGap]) -> None:
    """Store gaps; the same line again is nothing new."""
    for gap in gaps:
        store_new(connection, t.gaps, msgspec.structs.asdict(gap))


def count_gaps(ledger: Ledger, model: str, *, since: float = 0.0) -> dict[str, int]:
    """Count the requests without a record that ended after ``since``, by kind."""
    g = t.gaps.c
    query = select(g.kind, func.sum(g["count"])).where(g.model == model, g.until >= since)
    with ledger.read() as connection:
        found = {kind: int(count) for kind, count in connection.execute(query.group_by(g.kind))}
    return {"lost": 0, "shed": 0, **found}
