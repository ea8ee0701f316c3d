"""The reference: read from the folder of a version, or short after a drift."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from pump import make_version, rows
from scipy.signal import lfilter

from watchkeeper.core.policies import DriftPolicy
from watchkeeper.core.version import REFERENCE, BrokenVersionError
from watchkeeper.drift.reference_reader import read_reference
from watchkeeper.drift.statistics.columns import Feature
from watchkeeper.drift.statistics.effects import effect_size
from watchkeeper.drift.statistics.reference import make_reference

FLOW = Feature("flow", "numeric")
WINDOW = 500


def written(folder: Path, **metadata: Any) -> Path:
    """Write a version whose reference has 3,000 rows, every second one with a score."""
    data = rows(3000, 1)
    make_version(folder, data)
    data["score"] = [v if n % 2 else None for n, v in enumerate(data["score"])]
    table = pa.table(data).replace_schema_metadata({n: str(v) for n, v in metadata.items()})
    pyarrow.parquet.write_table(table, folder / REFERENCE)
    return folder


def test_inputs_are_of_all_rows_and_scores_of_those_that_have_one(tmp_path: Path) -> None:
    manifest = make_version(tmp_path / "other", rows(10, 1))
    reference = read_reference(written(tmp_path / "version"), manifest, DriftPolicy())
    assert len(reference.samples["flow"]) == 3000
    assert len(reference.samples["score"]) == 1500
    assert (reference.variation.rows, reference.variation.block_rows) == (3000, 500)


def test_after_a_drift_the_rows_before_the_onset_are_history_only(tmp_path: Path) -> None:
    manifest = make_version(tmp_path / "other", rows(10, 1))
    depends = {"score": ["flow"]}
    folder = written(tmp_path / "version", start=2400, depends=json.dumps(depends))
    reference = read_reference(folder, manifest, DriftPolicy())
    assert len(reference.samples["flow"]) == reference.variation.rows == 600
    assert len(reference.samples["score"]) == 300
    assert reference.variation.block_rows == 500, "the history is long enough for full blocks"
    assert reference.depends == depends


@pytest.mark.parametrize("metadata", [{"start": 3000}, {"start": -1}, {"depends": "{"}])
def test_the_error_names_a_reference_with_wrong_metadata(
    tmp_path: Path, metadata: dict[str, Any]
) -> None:
    manifest = make_version(tmp_path / "other", rows(10, 1))
    with pytest.raises(BrokenVersionError, match=r"reference\.parquet"):
        read_reference(written(tmp_path / "version", **metadata), manifest, DriftPolicy())


def wandering(seed: int, count: int) -> np.ndarray:
    """Return an AR(1) process of coefficient 0.9, with mean 0 and variance 1."""
    noise = np.random.default_rng(seed).normal(size=count + 100) * np.sqrt(1 - 0.81)
    return np.asarray(lfilter([1.0], [1.0, -0.9], noise))[100:]


def false_effects(seed: int, *, history: int) -> int:
    """Count the windows without drift beyond the threshold of a reference of 300 rows.

    ``history`` rows come before the reference.
    """
    values = wandering(seed, 30_000)
    past = values[10_000 - history : 10_300]
    reference = make_reference((FLOW,), {"flow": past}, WINDOW, start=history)
    (limit,) = reference.variation.thresholds[-1].values()
    windows = values[10_500:].reshape(-1, WINDOW)
    sample = reference.samples["flow"]
    return sum(effect_size("numeric", sample, window) > limit for window in windows)


def test_the_history_before_a_short_reference_shows_what_windows_may_differ_by() -> None:
    assert sum(false_effects(seed, history=10_000) for seed in range(10)) <= 2


def test_a_second_drift_is_seen_after_a_short_reference() -> None:
    values = wandering(3, 11_000)
    values[10_000:] += 1.0  # the drift that the version was trained for
    values[10_500:] += 1.0
    with_history, alone = (
        make_reference((FLOW,), {"flow": values[first:10_400]}, WINDOW, start=10_000 - first)
        for first in (0, 10_000)
    )
    effect = effect_size("numeric", with_history.samples["flow"], values[10_500:])
    assert with_history.variation.thresholds[-1]["flow"] < effect
    assert alone.variation.thresholds[-1]["flow"] > effect, "without history the watch is deaf"
