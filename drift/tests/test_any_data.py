"""Nothing that arrives as data stops the watch."""

import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake_platform import FakePlatform
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pump import COLUMNS, MODEL, make_version, predictions, rows

from watchkeeper.core.drift_report import dump_report, parse_report
from watchkeeper.core.events import Event, Promoted
from watchkeeper.core.policies import DriftPolicy, override
from watchkeeper.core.record import LabelRecord, Prediction
from watchkeeper.core.version import read_manifest
from watchkeeper.drift.examine import examine
from watchkeeper.drift.lease import WatchLease
from watchkeeper.drift.reference_reader import read_reference
from watchkeeper.drift.settings import SidecarSettings
from watchkeeper.drift.spool_loss import _utc
from watchkeeper.drift.watch import Watch
from watchkeeper.drift.window import Window
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.ledger.episodes import Episode, save_episode
from watchkeeper.ledger.events import emit
from watchkeeper.ledger.observations import Observation
from watchkeeper.ledger.records import store_records
from watchkeeper.ledger.reports import reports
from watchkeeper.ledger.spools import SpoolState

POLICY = override(DriftPolicy(), {"window": 40, "every": 10, "confirm": 1})
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**300, max_value=10**400),
    st.floats(),
    st.sampled_from(["L", "M", "H", "X", "", "\0"]),
    st.lists(st.floats(), max_size=2),
)
columns = st.dictionaries(
    st.sampled_from([*(column.name for column in COLUMNS), "score", "another"]),
    st.one_of(st.lists(values, max_size=30), values),
    max_size=7,
)
row_counts = st.one_of(st.integers(-3, 30), st.sampled_from([-(2**63), 2**31, 2**63 - 1]))
times = st.one_of(
    st.floats(1000.0, 1040.0), st.floats(allow_nan=False, allow_infinity=False), st.just(1000.0)
)
statuses = st.sampled_from(["OK", "OK", "INVALID_ARGUMENT"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("any") / "version"
    make_version(folder, rows(400, 1), POLICY)
    migrate(f"sqlite:///{folder.parent}/empty.db")
    return folder


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(statuses, row_counts, columns, columns, times), max_size=12),
    st.lists(st.tuples(times, columns), max_size=2),
)
@example([("OK", 1, {}, {"score": [1.797679419552144e308]}, 1000.0)], [])
def test_a_window_of_any_rows_has_a_report_that_can_be_stored(
    folder: Path,
    requests: list[tuple[str, int, dict[str, Any], dict[str, Any], float]],
    usual: list[tuple[float, dict[str, Any]]],
) -> None:
    reference = read_reference(folder, read_manifest(folder), POLICY)
    odd = [
        Observation(f"{n}", 1, "http", time, 0.0, status, count, inputs, outputs, "flow is wrong")
        for n, (status, count, inputs, outputs, time) in enumerate(requests)
    ]
    calm = [
        Observation(p.id, 1, "http", p.time, 0.0, "OK", p.rows, {**p.inputs, **change}, p.outputs)
        for p, (_, change) in zip(predictions(rows(60, 2), each=30), usual, strict=False)
    ]
    report = None
    for found in (odd, calm + odd, calm):
        report = examine(Window(found, 1.0, 2.0), reference, POLICY, report)
        stored = msgspec.json.decode(msgspec.json.encode(dump_report(report)))
        read = parse_report(stored, window=report.window, drifted=False)
        assert (read.verdict, read.reason) == (report.verdict, report.reason)


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(times, row_counts), min_size=1, max_size=60),
    st.lists(st.tuples(st.integers(0, 59), st.floats(), times), max_size=8),
)
def test_the_watch_continues_after_labels_rows_and_times_of_any_value(
    folder: Path, requests: list[tuple[float, int]], labels: list[tuple[int, float, float]]
) -> None:
    data = [
        msgspec.structs.replace(p, time=time, rows=count)
        for p, (time, count) in zip(predictions(rows(60, 2)), requests, strict=False)
    ]
    sent = [
        LabelRecord(data[n].id, 0, MODEL, 1, value, time, "any")
        for n, value, time in labels
        if n < len(data) and not math.isnan(value)  # databases store no NaN
    ]
    with tempfile.TemporaryDirectory() as place:
        shutil.copy(folder.parent / "empty.db", place)
        ledger = Ledger(f"sqlite:///{place}/empty.db")
        try:
            watch_them(ledger, folder, data, sent)
        finally:
            ledger.close()


def watch_them(
    ledger: Ledger, folder: Path, data: list[Prediction], labels: list[LabelRecord]
) -> None:
    emit(ledger, Event("promoted", MODEL, 1, 1.0, "first", Promoted()))
    waiting = Episode(
        "pump-failure-v1-e1", MODEL, 1, "waiting-for-labels", 0.0, 0.0, 0.0, 0, "drift"
    )
    save_episode(ledger, waiting)
    calm = predictions(rows(200, 3), first=100)
    store_records(ledger, [*data, *calm], labels, SpoolState("s", MODEL, 1, 0.0))
    lease = WatchLease(FakePlatform, MODEL, 1)  # type: ignore[arg-type]
    settings = SidecarSettings(MODEL, 1, folder, folder, "", "", 0)
    watch = Watch(settings, ledger, lease, read_manifest(folder), POLICY, clock=lambda: 2000.0)
    turns = 0
    while watch.run_once():
        turns += 1
        assert turns < 1000
    newest = reports(ledger, MODEL, 1, limit=1)[-1]
    assert newest.window.end >= 1100.0 + 200 - POLICY.every - 1, "the last window is examined"


@given(st.floats(allow_nan=False))
def test_an_event_can_name_any_time(seconds: float) -> None:
    assert _utc(seconds)
