"""Missing values of nullable columns: their share is watched, and the others are compared."""

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from alarms import CASES, run
from pump import make_version, rows

from watchkeeper.core.policies import DriftPolicy
from watchkeeper.core.signature import missing_name
from watchkeeper.core.version import REFERENCE
from watchkeeper.drift.examine import examine
from watchkeeper.drift.reference_reader import read_reference
from watchkeeper.drift.statistics.columns import Feature, encode, missing_feature, watched_features
from watchkeeper.drift.statistics.reference import Reference, make_reference
from watchkeeper.drift.window import Window
from watchkeeper.ledger.observations import Observation

POLICY = DriftPolicy()
FLOW = Feature("flow", "numeric", nullable=True)
GRADE = Feature("grade", "categorical", categories=("L", "M"), nullable=True)
FEATURES = (FLOW, GRADE, missing_feature("flow"), missing_feature("grade"))


def values(count: int, seed: int, flow: float, grade: float) -> dict[str, list]:
    """Columns of which these shares are missing, as a ledger has them."""
    random = np.random.default_rng(seed)
    numbers = random.normal(80.0, 10.0, count).tolist()
    texts = random.choice(["L", "M"], count).tolist()
    return {
        "flow": [
            None if gone else x
            for gone, x in zip(random.random(count) < flow, numbers, strict=True)
        ],
        "grade": [
            "" if gone else x for gone, x in zip(random.random(count) < grade, texts, strict=True)
        ],
    }


def reference(flow: float = 0.1, grade: float = 0.1) -> Reference:
    known = values(10_000, 1, flow, grade)
    columns = {f.name: encode(f, known[f.column]) for f in FEATURES}
    return make_reference(FEATURES, columns, POLICY.window)


def window(flow: float = 0.1, grade: float = 0.1) -> Window:
    inputs = values(POLICY.window, 2, flow, grade)
    seen = Observation("a", 1, "http", 1.0, 0.0, "OK", POLICY.window, inputs, {})
    return Window([seen], 0.0, 1.0)


def test_a_usual_share_is_no_drift_and_no_fault() -> None:
    report = examine(window(), reference(), POLICY, None)
    assert (report.verdict, report.sensors) == ("clean", {})
    shares = {f.name: f.window for f in report.features if f.kind == "missing"}
    assert shares.keys() == {"flow: missing", "grade: missing"}
    assert shares["flow: missing"]["missing"] == pytest.approx(0.1, abs=0.05)


@pytest.mark.parametrize("column", ["flow", "grade"])
def test_a_larger_share_is_a_drift_of_its_own(column: str) -> None:
    report = examine(window(**{column: 0.5}), reference(), POLICY, None)
    assert (report.verdict, report.sensors) == ("drifted", {})
    assert report.drifted_features == (missing_name(column),), "the others have not changed"


@pytest.mark.parametrize("column", ["flow", "grade"])
def test_a_column_that_is_always_missing_now_is_broken(column: str) -> None:
    report = examine(window(**{column: 1.0}), reference(), POLICY, None)
    assert report.verdict == "undecided"
    assert report.sensors[column].what == "missing or refused in 500 of 500 rows"
    assert all(f.left_out for f in report.features if f.name.startswith(column))


def test_a_column_that_was_always_missing_is_not_broken() -> None:
    report = examine(window(flow=1.0), reference(flow=1.0), POLICY, None)
    assert (report.verdict, report.sensors) == ("clean", {})


def test_values_that_never_were_missing_are_no_fault() -> None:
    report = examine(window(flow=0.0), reference(flow=0.05), POLICY, None)
    assert (report.verdict, report.sensors) == ("clean", {})


def test_the_reference_says_what_was_missing_and_what_describes_no_traffic(tmp_path: Path) -> None:
    data = rows(3000, 1)
    manifest = make_version(tmp_path / "version", data)
    columns = tuple(
        msgspec.structs.replace(column, nullable=column.name == "flow")
        for column in manifest.signature.inputs
    )
    signature = msgspec.structs.replace(manifest.signature, inputs=columns)
    manifest = msgspec.structs.replace(manifest, signature=signature)
    missing = [1.0 if n % 4 == 0 else 0.0 for n in range(3000)]
    missing[:100] = [None] * 100  # they do not describe the traffic
    data["flow"] = [
        v if gone == 0.0 else None for v, gone in zip(data["flow"], missing, strict=True)
    ]
    table = pa.table({**data, missing_name("flow"): missing})
    pyarrow.parquet.write_table(table, tmp_path / "version" / REFERENCE)
    found = read_reference(tmp_path / "version", manifest, POLICY)
    assert [f.name for f in watched_features(manifest) if f.kind == "missing"] == ["flow: missing"]
    assert found.samples["flow: missing"].mean() == pytest.approx(0.25, abs=0.01)
    assert len(found.samples["flow: missing"]) == 2900
    assert len(found.samples["flow"]) == 2175


def test_a_stream_with_missing_values_opens_no_episode() -> None:
    assert run(CASES["AR 0.9, 60 % missing"], 0)["episodes"] == 0


def test_a_larger_share_of_missing_values_is_seen_within_two_windows() -> None:
    delay = run(CASES["i.i.d., 10 % missing, then 45 %"], 0)["delay"]
    assert delay is not None
    assert delay <= 1000
