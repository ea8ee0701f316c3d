"""Drift reports of the versions of a model, one for each window."""

from typing import Any

from sqlalchemy import Row, select

from watchkeeper.core.drift_report import DriftReport, ReportWindow, dump_report, parse_report
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.database import Ledger
from watchkeeper.ledger.idempotent_writes import insert_once


def save_report(ledger: Ledger, model: str, version: int, report: DriftReport) -> None:
    """Store a report. A second report of a version with the same end of its window is ignored."""
    values = {
        "model": model,
        "version": version,
        "window_start": report.window.start,
        "window_end": report.window.end,
        "drifted": report.verdict == "drifted",
        "report": dump_report(report),
    }
    with ledger.write() as connection:
        insert_once(connection, t.drift_reports, values)


def reports(
    ledger: Ledger, model: str, version: int, *, limit: int = 20, until: float = float("inf")
) -> list[DriftReport]:
    """Return the newest reports of a version, oldest first.

    Args:
        ledger: the ledger.
        model: the model.
        version: the version.
        limit: the maximum number of reports.
        until: only windows that end at or before this record time, in seconds since 1970.
    """
    r = t.drift_reports.c
    query = (
        select(t.drift_reports)
        .where(r.model == model, r.version == version)
        .order_by(r.window_end.desc())
        .limit(limit)
    )
    if until != float("inf"):
        query = query.where(r.window_end <= until)
    with ledger.read() as connection:
        return [_report(row) for row in connection.execute(query)][::-1]


def broken_columns(
    ledger: Ledger, model: str, version: int, *, since: float, until: float
) -> tuple[str, ...]:
    """Return the columns that are called broken by a window that overlaps a time, in order.

    Args:
        ledger: the ledger.
        model: the model.
        version: the version.
        since: the beginning of the time, in seconds since 1970.
        until: its end, in seconds since 1970.
    """
    r = t.drift_reports.c
    query = select(t.drift_reports).where(
        r.model == model, r.version == version, r.window_end >= since, r.window_start <= until
    )
    with ledger.read() as connection:
        found = [_report(row) for row in connection.execute(query)]
    return tuple(sorted({column for report in found for column in report.sensors}))


def _report(row: Row[Any]) -> DriftReport:
    window = ReportWindow(row.window_start, row.window_end)
    return parse_report(row.report, window=window, drifted=row.drifted)
