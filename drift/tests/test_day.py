"""The z-score of a day counts each row of the last 24 hours once, whatever the windows are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchkeeper.core.drift_report import DriftReport, dump_report, parse_report
from watchkeeper.core.policies import DriftPolicy, override
from watchkeeper.drift.examine import examine
from watchkeeper.drift.statistics.columns import Feature
from watchkeeper.drift.statistics.day import PART_SECONDS, PARTS
from watchkeeper.drift.statistics.reference import Reference, make_reference
from watchkeeper.drift.window import Window
from watchkeeper.ledger.observations import Observation

HOUR, NOON = 3600.0, 1_767_268_800.0
POLICY = override(DriftPolicy(), {"window": 200, "every": 50})
FLOW, GRADE = Feature("flow", "numeric"), Feature("grade", "categorical", categories=("L", "M"))


@pytest.fixture(scope="module")
def reference() -> Reference:
    random = np.random.default_rng(1)
    columns = {"flow": random.normal(5.0, 2.0, 4000), "grade": random.integers(0, 2, 4000) * 1.0}
    return make_reference((FLOW, GRADE), columns, POLICY.window)


def reports_of(
    reference: Reference, times: np.ndarray, flow: np.ndarray, *, every: int, sizes: int = 1
) -> list[DriftReport]:
    """Return the reports of the windows of a stream; each request has ``sizes`` rows."""
    requests = [
        Observation(
            *(str(n), 1, "http", float(times[n]), 0.0, "OK", sizes),
            {"flow": flow[n : n + sizes].tolist(), "grade": ["L"] * sizes},
        )
        for n in range(0, len(flow), sizes)
    ]
    found: list[DriftReport] = []
    for end in range(POLICY.window // sizes, len(requests) + 1, every // sizes):
        part = requests[end - POLICY.window // sizes : end]
        window = Window(part, part[0].time, part[-1].time)
        previous = found[-1] if found else None
        if previous:  # another sidecar reads it from the ledger
            previous = parse_report(dump_report(previous), window=previous.window, drifted=False)
        found.append(examine(window, reference, POLICY, previous))
    return found


def expected(reference: Reference, times: np.ndarray, flow: np.ndarray) -> float:
    """The z-score of the rows since the start of the oldest part of the day."""
    start = np.floor(times[-1] / PART_SECONDS) * PART_SECONDS - (PARTS - 1) * PART_SECONDS
    sample = reference.samples["flow"]
    return float((flow[times >= start].mean() - sample.mean()) / sample.std())


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    hours=st.floats(0.1, 90.0),
    every=st.sampled_from([50, 100, 200]),
    sizes=st.sampled_from([1, 10]),
)
def test_each_row_of_the_day_counts_once(
    reference: Reference, seed: int, hours: float, every: int, sizes: int
) -> None:
    random = np.random.default_rng(seed)
    times = np.repeat(NOON + np.sort(random.uniform(0, hours * HOUR, 1000 // sizes)), sizes)
    flow = random.normal(random.uniform(0, 9), 3.0, len(times))
    newest = reports_of(reference, times, flow, every=every, sizes=sizes)[-1].features[0]
    assert newest.z_day == pytest.approx(expected(reference, times, flow))
    assert len(newest.day) <= PARTS


def test_a_slow_change_shows_in_the_day_before_its_windows_are_forgotten(
    reference: Reference,
) -> None:
    times = NOON + np.arange(2000) * 40.0  # 22 hours
    flow = np.concatenate([np.full(1800, 9.0), np.full(200, 5.0)])  # back to normal at the end
    newest = reports_of(reference, times, flow, every=200)[-1].features[0]
    assert newest.z == pytest.approx(0.0, abs=0.1)
    assert newest.z_day == pytest.approx(1.8, abs=0.1)


def test_missing_values_do_not_count_and_categories_have_no_z_score(reference: Reference) -> None:
    times = NOON + np.arange(400.0)
    flow = np.where(np.arange(400) % 2, 7.0, np.nan)
    flow_report, grade = reports_of(reference, times, flow, every=200)[-1].features
    assert flow_report.z_day == pytest.approx(1.0, abs=0.1)
    assert sum(part.rows for part in flow_report.day) == 200
    assert (grade.z_day, grade.day) == (None, ())


def test_a_day_without_values_has_no_z_score(reference: Reference) -> None:
    times = NOON + np.arange(400.0)
    newest = reports_of(reference, times, np.full(400, np.nan), every=200)[-1].features[0]
    assert newest.z_day is None


def test_values_near_the_largest_double_give_no_infinite_mean(reference: Reference) -> None:
    times = NOON + np.arange(400.0)
    newest = reports_of(reference, times, np.full(400, 1e308), every=200)[-1]
    stored = parse_report(dump_report(newest), window=newest.window, drifted=False)
    assert stored.features[0].day[0].mean == pytest.approx(1e308)
