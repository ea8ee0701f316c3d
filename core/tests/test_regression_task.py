"""The regression task: its metrics equal those of scikit-learn, and its intervals are honest."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from watchkeeper.core.head import Head, Interval
from watchkeeper.core.tasks import task_of
from watchkeeper.core.tasks.base import InvalidLabelError, Labelled
from watchkeeper.core.tasks.regression import conformal_interval


def head(**changes: Any) -> Head:
    return Head("rul", "rul.skops", "predict", task="regression", label="rul", **changes)


TASK = task_of(head())


def drawn(random: np.random.Generator, rows: int, error: float) -> Labelled:
    target = random.gamma(2.0, 40.0, rows)
    return Labelled(target, {"rul": target + random.normal(0.0, error, rows)})


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(5, 80), st.sampled_from([0.0, 1e6]))
def test_metrics_equal_those_of_scikit_learn(seed: int, rows: int, offset: float) -> None:
    found = drawn(np.random.default_rng(seed), rows, 10.0)
    target, score = found.target + offset, found.scores["rul"] + offset
    measured = TASK.measure(Labelled(target, {"rul": score}), seed=0)
    expected = {
        "r2": sk.r2_score(target, score),
        "mean_absolute_error": sk.mean_absolute_error(target, score),
        "root_mean_squared_error": sk.root_mean_squared_error(target, score),
    }
    assert {name: measured[name].value for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_a_prediction_interval_contains_the_stated_share_of_new_rows(level: float) -> None:
    random = np.random.default_rng(4)
    shares = []
    for _ in range(200):
        unseen, new = drawn(random, 150, 10.0), drawn(random, 200, 10.0)
        calibrated = task_of(task_of(head(interval=Interval(level, 0.0))).calibrated(unseen))
        ends = calibrated.answer(new.scores)
        shares.append(((ends["rul_low"] <= new.target) & (new.target <= ends["rul_high"])).mean())
    assert level - 0.005 <= np.mean(shares) <= level + 0.015


def test_too_few_rows_have_no_interval() -> None:
    assert conformal_interval(np.arange(8.0), 0.9) is None
    assert conformal_interval(np.arange(9.0), 0.9) == Interval(0.9, 8.0)
    with pytest.raises(ValueError, match="needs more than 5 held-out rows"):
        task_of(head(interval=Interval(0.9, 0.0))).calibrated(drawn(np.random.default_rng(), 5, 1))


@pytest.mark.parametrize("paired", [True, False])
def test_an_equal_version_is_seldom_called_better_or_worse(paired: bool) -> None:
    random = np.random.default_rng(5)
    beyond = []
    for _ in range(400):
        one = drawn(random, 200, 10.0)
        if paired:
            score = one.target + random.normal(0.0, 10.0, 200)
            found = TASK.paired(one, Labelled(one.target, {"rul": score}))
        else:
            found = TASK.unpaired(one, drawn(random, 200, 10.0))
        assert found is not None
        beyond.append(abs(found.value) > 1.96 * found.variance**0.5)
    assert 0.02 <= np.mean(beyond) <= 0.09


def test_the_difference_is_relative_to_the_error_of_the_other_version() -> None:
    random = np.random.default_rng(6)
    found = TASK.unpaired(drawn(random, 20_000, 12.0), drawn(random, 20_000, 10.0))
    assert found is not None
    assert found.value == pytest.approx(-0.2, abs=0.03)


@pytest.mark.parametrize("label", ["57", None, True, float("nan"), float("inf"), 10**400])
def test_labels_that_are_no_finite_number_are_refused(label: object) -> None:
    assert TASK.code(57) == 57.0
    with pytest.raises(InvalidLabelError, match="finite number"):
        TASK.code(label)


def test_a_monotone_function_of_the_truth_separates_it() -> None:
    random = np.random.default_rng(7)
    target = random.gamma(2.0, 40.0, 500)
    assert TASK.separation(target, -(target**3)).value == 1.0
    near = TASK.separation(target, target + random.normal(0.0, 1.0, 500))
    assert near.low is not None
    assert near.low > 0.95
    assert (TASK.separation(target, random.random(500)).value or 0.0) < 0.2
