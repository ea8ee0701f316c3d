"""A drift is confirmed by rows that no earlier window has."""

import numpy as np
import pytest

from watchkeeper.core.drift_report import DriftReport
from watchkeeper.core.policies import DriftPolicy, override
from watchkeeper.drift.examine import examine
from watchkeeper.drift.statistics.columns import Feature
from watchkeeper.drift.statistics.reference import Reference, make_reference
from watchkeeper.drift.statistics.streak import newest_streak
from watchkeeper.drift.window import Window
from watchkeeper.ledger.observations import Observation

POLICY = override(DriftPolicy(), {"window": 200, "every": 50})
FLOW, SPEED = Feature("flow", "numeric"), Feature("speed", "numeric")


@pytest.fixture(scope="module")
def reference() -> Reference:
    rng = np.random.default_rng(1)
    columns = {"flow": rng.normal(size=4000), "speed": rng.normal(size=4000)}
    return make_reference((FLOW, SPEED), columns, POLICY.window)


def reports_of(
    reference: Reference, flow: np.ndarray, speed: np.ndarray, refused: slice = slice(0)
) -> list[DriftReport]:
    """Return the reports of all windows of a stream; the record time of a row is its number."""
    status = np.full(len(flow), "OK", dtype=object)
    status[refused] = "INTERNAL"
    requests = [
        Observation(
            str(n), 1, "http", float(n), 0.0, status[n], 1, {"flow": [flow[n]], "speed": [speed[n]]}
        )
        for n in range(len(flow))
    ]
    found: list[DriftReport] = []
    for end in range(POLICY.window, len(flow) + 1, POLICY.every):
        part = requests[end - POLICY.window : end]
        window = Window(part, part[0].time, part[-1].time)
        found.append(examine(window, reference, POLICY, found[-1] if found else None))
    return found


def streams(rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    return rng.normal(size=rows), rng.normal(size=rows)


def test_windows_that_share_the_drifted_rows_do_not_confirm_each_other(
    reference: Reference,
) -> None:
    flow, speed = streams(1000)
    flow[400:450] += 9.0  # a quarter of a window, and four windows contain it
    found = reports_of(reference, flow, speed)
    assert sum(report.verdict == "drifted" for report in found) == 4
    assert max(newest_streak(found[: n + 1]).drifted for n in range(len(found))) == 1


def test_a_quarter_of_a_window_of_newer_rows_confirms_a_drift(reference: Reference) -> None:
    flow, speed = streams(800)
    flow[400:] += 2.0
    found = reports_of(reference, flow, speed)
    first = next(n for n, report in enumerate(found) if report.verdict == "drifted")
    assert [newest_streak(found[: n + 1]).drifted for n in (first, first + 1)] == [1, 2]
    assert newest_streak(found).features == ("flow",)


def test_another_feature_does_not_confirm_a_drift(reference: Reference) -> None:
    flow, speed = streams(1000)
    flow[400:450] += 9.0
    speed[450:500] += 9.0
    found = reports_of(reference, flow, speed)
    drifted = [report.drifted_features for report in found if report.verdict == "drifted"]
    assert drifted == [("flow",), *[("flow", "speed")] * 3, ("speed",)]
    assert newest_streak(found[:9]).drifted == 1


def test_an_undecided_window_does_not_end_a_confirmation(reference: Reference) -> None:
    flow, speed = streams(900)
    flow[300:] += 3.0
    found = reports_of(reference, flow, speed, refused=slice(400, 560))
    undecided = [n for n, report in enumerate(found) if report.verdict == "undecided"]
    assert undecided
    before, after = found[undecided[0]].features[0], found[undecided[-1]].features[0]
    assert before.confirmations == after.confirmations >= 1
    assert found[undecided[-1] + 1].features[0].confirmations > after.confirmations
