"""Drift reports as the watch wrote them."""

from typing import Any

import msgspec
from sqlalchemy import select

from watchkeeper.ledger import tables as t
from watchkeeper.ledger.database import Ledger
from watchkeeper.ledger.once import store_new


class DriftReport(msgspec.Struct, frozen=True):
    """One comparison of a window with the reference; ``report`` is what ``/drift`` shows."""

    model: str
    version: int
    window_start: float
    window_end: float
    drifted: bool
    report: dict[str, Any]


def save_report(ledger: Ledger, report: DriftReport) -> None:
    """Store a report; the same window again is nothing new."""
    with ledger.begin() as connection:
        store_new(connection, t.drift_reports, msgspec.structs.asdict(report))


def reports(
    ledger: Ledger, model: str, version: int, *, newest: int = 20, until: float = float("inf")
) -> list[DriftReport]:
    """Return the latest reports about a version's windows up to ``until``, oldest first."""
    r = t.drift_reports.c
    query = (
        select(t.drift_reports)
        .where(r.model == model, r.version == version)
        .order_by(r.window_end.desc())
        .limit(newest)
    )
    if until != float("inf"):
        query = query.where(r.window_end <= until)
    with ledger.read() as connection:
        return [DriftReport(**row._mapping) for row in connection.execute(query)][::-1]
