"""The reference describes what the version will see, with rows that it was not fitted on."""

import logging
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pumps
import pyarrow.parquet
import pytest

from watchkeeper.training.fit import Fitted
from watchkeeper.training.models import find
from watchkeeper.training.recent import Recent
from watchkeeper.training.reference import (
    Reference,
    baseline,
    choose_reference,
    write_parquet,
)
from watchkeeper.training.rows import Rows, ScoredRows
from watchkeeper.training.split import split
from watchkeeper.training.usable import usable

MODEL = find("pump-failure")


def trained(count: int, labelled: int, regime: float | None = None) -> tuple[Fitted, Recent]:
    """Return rows of a history of 10,000 rows and of ``count`` recent ones, with scores."""
    history = usable(pumps.readings(10_000).set_index("id"), MODEL, "a test")
    table = pumps.readings(count, seed=1, changed=True)
    table[pumps.TARGET] = table[pumps.TARGET].astype(float).where(table.index < labelled)
    # The ids of predictions do not rise with time.
    table.index = pd.Index([f"{n * 7919 % 10007:032x}" for n in range(count)])
    recent = usable(table, MODEL, "a test")
    parts = split(history, recent, MODEL)

    def scored(rows: Rows) -> ScoredRows:
        return ScoredRows(rows, {"failure_probability": np.full(len(rows), 0.5)})

    fitted = Fitted(
        (),
        {},
        train=scored(parts.train),
        held=scored(parts.held),
        recent_train=scored(parts.recent_train),
        unseen=scored(parts.unseen),
    )
    return fitted, Recent(recent, regime)


def known_scores(reference: Reference) -> int:
    return int((~np.isnan(reference.compared().scores["failure_probability"])).sum())


def test_without_drift_it_is_the_whole_history_with_the_scores_of_held_out_rows() -> None:
    reference = choose_reference(*trained(0, 0), MODEL)
    assert (len(reference.compared()), reference.describes) == (10_000, "history")
    assert list(reference.rows.rows.key) == list(range(1, 10_001))
    assert known_scores(reference) == 3000


def test_rows_since_the_history_are_of_the_same_regime_and_come_last() -> None:
    reference = choose_reference(*trained(500, 0), MODEL)
    assert (len(reference.compared()), reference.describes) == (10_500, "history and recent")
    assert np.mean(reference.rows.rows.columns["inlet_temperature"][-500:]) > 305


def test_after_a_drift_it_is_all_rows_since_the_onset_and_the_history_comes_before() -> None:
    fitted, recent = trained(2000, 1200, regime=1.0)
    reference = choose_reference(fitted, recent, MODEL)
    assert (reference.start, reference.describes) == (10_000, "recent")
    assert list(reference.compared().rows.key) == list(recent.rows.key)
    assert known_scores(reference) == len(fitted.unseen)
    assert reference.compared().rows.columns["inlet_temperature"].min() > 300


def test_a_file_of_100_000_rows_has_less_than_8_megabytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = usable(
        pumps.readings(100_000).rename(columns={"id": "key"}).assign(load=rng.random(100_000)),
        MODEL,
        "a test",
    )
    scores = np.where(rng.random(len(rows)) < 0.3, rng.random(len(rows)), np.nan)
    reference = Reference(ScoredRows(rows, {"failure_probability": scores}), 0, "history")
    file = tmp_path / "reference.parquet"
    write_parquet(file, reference, {"failure_probability": ["load"]}, MODEL)
    table = pyarrow.parquet.read_table(file)
    assert table.num_rows == 100_000
    assert table["load"].to_pylist() == rows.columns["load"].tolist(), "no value is rounded"
    assert table["failure_probability"].null_count == int(np.isnan(scores).sum())
    assert table.schema.metadata[b"start"] == b"0"
    assert file.stat().st_size < 8e6


def test_too_few_rows_of_a_new_regime_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        reference = choose_reference(*trained(150, 100, regime=1.0), MODEL)
    assert (reference.start, reference.describes) == (0, "history and recent")
    assert "the watch may alarm again" in caplog.text


def test_the_baseline_has_no_categories_and_no_rows_before_the_reference() -> None:
    reference = choose_reference(*trained(500, 300, regime=1.0), MODEL)
    found = baseline(reference, MODEL)
    assert set(found) == {*pumps.NUMERIC, "failure_probability"}
    assert found["failure_probability"].std == 0.0
    assert found["inlet_temperature"].mean > 305


def with_typical(fitted: Fitted, recent: Recent, column: str) -> tuple[Fitted, Recent]:
    """Return the same rows, of which a column does not describe the traffic in recent rows."""
    place = MODEL.names.index(column)

    def changed(rows: Rows) -> Rows:
        typical = rows.typical.copy()
        typical[:, place] = False
        return msgspec.structs.replace(rows, typical=typical)

    def scored(rows: ScoredRows) -> ScoredRows:
        return ScoredRows(changed(rows.rows), rows.scores)

    parts = {"recent_train": scored(fitted.recent_train), "unseen": scored(fitted.unseen)}
    return (
        msgspec.structs.replace(fitted, **parts),
        msgspec.structs.replace(recent, rows=changed(recent.rows)),
    )


def test_values_that_do_not_describe_the_traffic_are_missing_with_the_scores_of_them(
    tmp_path: Path,
) -> None:
    fitted, recent = with_typical(*trained(500, 300, regime=1.0), "load")
    for depends, known in (
        ({"failure_probability": ["load"]}, 0),
        ({"failure_probability": []}, 1),
    ):
        reference = choose_reference(fitted, recent, MODEL, depends)
        write_parquet(tmp_path / "reference.parquet", reference, depends, MODEL)
        file = pyarrow.parquet.read_table(tmp_path / "reference.parquet")
        assert file["load"].null_count == 500
        assert file["wear"].null_count == 0
        assert known_scores(reference) == known * len(fitted.unseen)
        assert "load" not in baseline(reference, MODEL)
        assert "wear" in baseline(reference, MODEL)


def test_rows_that_do_not_describe_the_traffic_are_not_in_the_reference() -> None:
    fitted, recent = trained(500, 300, regime=1.0)
    for column in MODEL.names:
        fitted, recent = with_typical(fitted, recent, column)
    reference = choose_reference(fitted, recent, MODEL)
    assert (len(reference.rows), reference.describes) == (10_000, "history")
    assert "only 0 rows since the onset" in reference.refused


def test_recent_rows_with_a_constant_column_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    for regime in (None, 1.0):
        fitted, recent = trained(500, 300, regime=regime)
        for part in (fitted.recent_train, fitted.unseen):
            part.rows.columns["load"] = 42.0
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            reference = choose_reference(fitted, recent, MODEL)
        assert (len(reference.rows), reference.describes) == (10_000, "history")
        assert reference.refused == "load: constant in 500 rows, and never in the history"
        assert reference.refused in caplog.text
        assert ("the watch may alarm again" in caplog.text) == (regime is not None)
