"""The metrics equal those of scikit-learn, and their intervals have the stated coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from watchkeeper.core.gate_report import Estimate
from watchkeeper.training.metrics import (
    auc_difference,
    average_precision,
    resamples,
    score_metrics,
)

rows = st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=4, max_size=60).filter(
    lambda pairs: len({positive for positive, _ in pairs}) == 2
)


@settings(max_examples=40, deadline=None)
@given(rows)
def test_metrics_equal_those_of_scikit_learn_also_with_ties(pairs: list[tuple[bool, int]]) -> None:
    target = np.array([float(positive) for positive, _ in pairs])
    score = np.array([level / 6 for _, level in pairs])
    found = score_metrics(target, score, 0.5, seed=0)
    alarm = score >= 0.5
    expected = {
        "accuracy": sk.accuracy_score(target, alarm),
        "recall": sk.recall_score(target, alarm),
        "f1": sk.f1_score(target, alarm),
        "roc_auc": sk.roc_auc_score(target, score),
        "average_precision": sk.average_precision_score(target, score),
    }
    assert {name: found[name].value for name in expected} == pytest.approx(expected)
    assert found["precision"].value == (
        pytest.approx(sk.precision_score(target, alarm)) if alarm.any() else None
    )


def test_weights_count_as_repeated_rows() -> None:
    random = np.random.default_rng(3)
    target, score = (random.random(80) < 0.3).astype(float), random.random(80).round(1)
    weights = resamples(80, seed=1)[:5]
    assert average_precision(target, score, weights) == pytest.approx(
        [sk.average_precision_score(target, score, sample_weight=weight) for weight in weights]
    )


def test_the_interval_has_the_stated_coverage() -> None:
    random = np.random.default_rng(0)
    truth = 0.7602  # of two normal distributions one standard deviation apart
    covered = 0
    for seed in range(60):
        target = (random.random(400) < 0.25).astype(float)
        estimate = score_metrics(target, random.normal(target), 0.5, seed)["roc_auc"]
        assert estimate.low is not None
        assert estimate.high is not None
        covered += estimate.low <= truth <= estimate.high
    assert covered >= 51


def test_a_difference_is_paired() -> None:
    random = np.random.default_rng(1)
    target = (random.random(1000) < 0.1).astype(float)
    good = random.normal(target * 2)
    same = auc_difference(target, good, good)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    worse = auc_difference(target, good + random.normal(size=1000), good)
    assert worse.high is not None
    assert worse.high < 0.0


def test_roc_auc_is_undefined_with_one_outcome_only() -> None:
    found = score_metrics(np.zeros(50), np.linspace(0, 1, 50), 0.5, seed=0)
    assert found["roc_auc"].value is None
    assert found["accuracy"].value == pytest.approx(0.5)


def test_one_positive_row_gives_a_value_and_no_certainty() -> None:
    target, score = np.array([1.0, 0.0, 0.0]), np.array([0.9, 0.1, 0.2])
    assert score_metrics(target, score, 0.5, seed=0)["roc_auc"] == Estimate(1.0, 0.0, 1.0)
    assert auc_difference(target, score, -score) == Estimate(1.0, -1.0, 1.0)
