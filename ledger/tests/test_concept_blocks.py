"""Blocks of labelled rows: which rows they have, and that they are stored once."""

import math

import msgspec
import pytest
from samples import prediction, spool

from watchkeeper.core.drift_report import BrokenSensor, DriftReport, ReportWindow
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.concept_blocks import (
    ConceptBlock,
    blocks,
    newest_block,
    next_block,
    save_block,
)
from watchkeeper.ledger.records import store_records
from watchkeeper.ledger.reports import broken_columns, save_report
from watchkeeper.ledger.retention import BLOCKS_RETAINED, remove_batch

BLOCK = ConceptBlock(1.0, 2.0, 50, 45, 0.25)


def following(ledger: Ledger, after: float = -math.inf, until: float = 1e9) -> ConceptBlock | None:
    return next_block(ledger, "m", 1, 3, after=after, until=until)


def test_a_block_is_stored_once_and_read_back(ledger: Ledger) -> None:
    skipped = ConceptBlock(3.0, 4.0, 50, 2, None, "2 of 50 rows were labelled in time")
    for block in (skipped, BLOCK, msgspec.structs.replace(BLOCK, loss=0.9)):
        save_block(ledger, "m", 1, "failed", block)
    save_block(ledger, "m", 1, "rul", BLOCK)
    save_block(ledger, "m", 2, "failed", BLOCK)
    assert blocks(ledger, "m", 1, "failed") == [BLOCK, skipped]
    assert blocks(ledger, "m", 1, "failed", until=3.9) == [BLOCK]
    assert newest_block(ledger, "m", 1, "failed") == skipped
    assert newest_block(ledger, "m", 1, "failed", until=3.9) == BLOCK
    assert newest_block(ledger, "m", 1, "other") is None
    assert blocks(ledger, "m", 1, "other") == []


def test_a_block_has_whole_requests_and_begins_after_the_one_before(ledger: Ledger) -> None:
    times = [1.0, 2.0, 3.0, 3.0, 5.0]
    store_records(ledger, [prediction(n, time) for n, time in enumerate(times)], [], spool(5.0))
    assert following(ledger) == ConceptBlock(1.0, 3.0, 4, 0, None)
    assert following(ledger, after=2.0) == ConceptBlock(3.0, 5.0, 3, 0, None)
    assert following(ledger, after=2.0, until=4.0) is None
    assert following(ledger, after=3.0) is None


def test_only_answered_rows_of_real_requests_are_in_a_block(ledger: Ledger) -> None:
    sent = [prediction(n, float(n)) for n in range(12)]
    sent[1] = msgspec.structs.replace(sent[1], synthetic=True)
    sent[2] = msgspec.structs.replace(sent[2], version=2)
    sent[3] = msgspec.structs.replace(sent[3], model="other")
    sent[4] = msgspec.structs.replace(sent[4], status="INVALID_ARGUMENT", rows=0)
    store_records(ledger, sent, [], spool(12.0))
    assert following(ledger) == ConceptBlock(0.0, 6.0, 3, 0, None)


@pytest.mark.parametrize(
    ("since", "until", "broken"),
    [(0.0, 9.9, ()), (0.0, 10.0, ("flow",)), (20.0, 30.0, ("flow", "speed")), (41.0, 50.0, ())],
)
def test_a_column_is_broken_in_each_window_that_overlaps(
    ledger: Ledger, since: float, until: float, broken: tuple[str, ...]
) -> None:
    for column, start in {"flow": 10.0, "speed": 30.0}.items():
        report = DriftReport(
            verdict="undecided",
            reason="",
            window=ReportWindow(start, start + 10, 500),
            sensors={column: BrokenSensor("stuck", start)},
        )
        save_report(ledger, "m", 1, report)
    assert broken_columns(ledger, "m", 1, since=since, until=until) == broken


def test_the_newest_blocks_stay(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchkeeper.ledger.retention.BLOCKS_RETAINED", 5)
    assert BLOCKS_RETAINED > 1000
    for n in range(10):
        save_block(
            ledger, "m", 1, "failed", msgspec.structs.replace(BLOCK, since=n, until=float(n))
        )
    remove_batch(ledger, "m", before=8.0, now=100.0)
    assert [block.until for block in blocks(ledger, "m", 1, "failed")] == [5, 6, 7, 8, 9]


def test_skipped_blocks_do_not_hide_or_remove_judged_ones(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchkeeper.ledger.retention.BLOCKS_RETAINED", 3)
    for n in range(20):
        block = msgspec.structs.replace(
            BLOCK, since=n, until=float(n), loss=0.1 if n in (0, 1) else None
        )
        save_block(ledger, "m", 1, "failed", block)
    found = blocks(ledger, "m", 1, "failed", limit=2)
    assert [block.until for block in found] == [0, 1, 18, 19]
    remove_batch(ledger, "m", before=1000.0, now=2000.0)
    assert [b.until for b in blocks(ledger, "m", 1, "failed")] == [0, 1, 17, 18, 19]
