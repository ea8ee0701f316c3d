"""The gate's report is read back as it was written, from its file and from its event."""

from pathlib import Path

import msgspec
import pytest

from watchkeeper.core.estimates import Estimate
from watchkeeper.core.events import GatePassed, TrainingData, dump_details, parse_details
from watchkeeper.core.gate_report import (
    Check,
    GateReport,
    Shift,
    Trial,
    read_report,
    write_report,
)

REPORT = GateReport(
    passed=True,
    reason="roc_auc is 0.95",
    threshold=0.5,
    checks=[Check("floor roc_auc", True, "roc_auc is 0.95", Estimate(0.95, 0.9, 1.0), 0.9)],
    metrics={"history": {"roc_auc": Estimate(0.95, 0.9, 1.0)}},
    rows={"history": {"rows": 100, "positives": 10}},
    score="probability",
    answers={"history": {"failure": Estimate(None)}},
    score_shift={"probability": Shift("recent", 50, Estimate(0.1, 0.0, 0.2), {"0.5": 0.1})},
    search=[
        Trial({"leaf": 5}, 0.8, values=[0.7, None, 0.8], started=1.5, seconds=2.0),
        Trial({"leaf": 2}, state="failed", number=1, message="ValueError: too few rows"),
    ],
)


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_report(tmp_path, REPORT)
    assert read_report(tmp_path) == REPORT


def test_a_trial_of_an_earlier_release_is_complete() -> None:
    text = msgspec.json.encode({"parameters": {"leaf": 5}, "value": 0.8})
    assert msgspec.json.decode(text, type=Trial) == Trial({"leaf": 5}, 0.8)
    assert Trial({}).state == "complete"


def test_a_shift_on_unknown_rows_is_refused() -> None:
    text = msgspec.json.encode(REPORT).replace(b'"on":"recent"', b'"on":"all"')
    with pytest.raises(msgspec.ValidationError, match=r"Invalid enum value 'all'"):
        msgspec.json.decode(text, type=GateReport)


def test_an_event_contains_the_report() -> None:
    event = GatePassed(
        run="run",
        trigger="a test",
        code_version="1",
        data=TrainingData("0" * 64, 100, 0, "history"),
        mlflow_run="id",
        report=msgspec.structs.replace(REPORT, search=[]),
    )
    stored = msgspec.json.decode(msgspec.json.encode(dump_details(event)))
    assert parse_details("gate-passed", stored) == event
