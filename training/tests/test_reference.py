"""The reference describes what the version will see, by rows that it was not fitted on."""

import logging

import milling
import numpy as np
import pytest

from watchkeeper.training.models import find
from watchkeeper.training.reference import baseline, choose
from watchkeeper.training.rows import usable
from watchkeeper.training.split import Parts, split

MODEL = find("ai4i-failure")


def parts(recent: int, labelled: int) -> Parts:
    history = usable(milling.pieces(10_000).rename(columns={"id": "key"}), MODEL, "a test")
    table = milling.pieces(recent, seed=1, changed=True)
    table[milling.TARGET] = table[milling.TARGET].astype(float).where(table.index < labelled)
    table = table.assign(key=[f"{n:032x}" for n in range(recent)])
    return split(history, usable(table, MODEL, "a test"), MODEL)


def test_without_any_drift_it_is_the_held_out_history() -> None:
    rows, what = choose(parts(0, 0), None, MODEL)
    assert (len(rows), what) == (3000, "history")


def test_rows_seen_since_belong_to_the_same_regime_and_come_last() -> None:
    rows, what = choose(parts(500, 0), None, MODEL)
    assert (len(rows), what) == (3500, "history and recent")
    assert np.mean(rows.columns["air_temperature"][-500:]) > 305


def test_after_a_drift_it_is_the_new_regime_alone() -> None:
    split_up = parts(2000, 1200)
    rows, what = choose(split_up, 1.0, MODEL)
    assert what == "recent"
    assert list(rows.key) == sorted(rows.key)
    assert not set(rows.key) & set(split_up.recent_train.key)
    assert rows.columns["air_temperature"].min() > 300


def test_it_never_grows_beyond_what_is_declared() -> None:
    rows, _ = choose(parts(9000, 0), 1.0, MODEL)
    assert len(rows) == MODEL.split.reference_rows
    assert rows.key[-1] == f"{8999:032x}", "the newest are kept"


def test_too_few_rows_of_a_new_regime_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _, what = choose(parts(150, 100), 1.0, MODEL)
    assert what == "history and recent"
    assert "the watch may alarm again" in caplog.text


def test_the_baseline_is_of_numbers_only() -> None:
    rows, _ = choose(parts(0, 0), None, MODEL)
    found = baseline(rows, {"failure_probability": np.full(len(rows), 0.5)}, MODEL)
    assert set(found) == {*milling.MEASURED[1:], "failure_probability"}
    assert found["failure_probability"].std == 0.0
    assert found["torque"].mean == pytest.approx(40.0, abs=1.0)
