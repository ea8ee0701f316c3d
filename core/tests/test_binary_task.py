"""The metrics equal those of scikit-learn, and their intervals have the stated coverage."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from watchkeeper.core.estimates import Estimate, normal, resamples
from watchkeeper.core.head import Head
from watchkeeper.core.tasks import task_of
from watchkeeper.core.tasks.base import InvalidLabelError, Labelled
from watchkeeper.core.tasks.binary import average_precision

TASK = task_of(Head("p", "p.skops", "predict_proba", label="failed", threshold=0.5))


def measured(target: Any, score: Any, seed: int = 0) -> dict[str, Estimate]:
    return TASK.measure(Labelled(target, {"p": score}), seed)


def difference(target: Any, new: Any, old: Any) -> Estimate:
    found = TASK.paired(Labelled(target, {"p": new}), Labelled(target, {"p": old}))
    assert found is not None
    return normal(found.value, found.variance)


rows = st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=4, max_size=60).filter(
    lambda pairs: len({positive for positive, _ in pairs}) == 2
)


@settings(max_examples=40, deadline=None)
@given(rows)
def test_metrics_equal_those_of_scikit_learn_also_with_ties(pairs: list[tuple[bool, int]]) -> None:
    target = np.array([float(positive) for positive, _ in pairs])
    score = np.array([level / 6 for _, level in pairs])
    found = measured(target, score)
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
    weights = next(resamples(80, seed=1))[:5]
    assert average_precision(target, score, weights) == pytest.approx(
        [sk.average_precision_score(target, score, sample_weight=weight) for weight in weights]
    )


def test_the_interval_has_the_stated_coverage() -> None:
    random = np.random.default_rng(0)
    truth = 0.7602  # of two normal distributions one standard deviation apart
    covered = 0
    for seed in range(60):
        target = (random.random(400) < 0.25).astype(float)
        estimate = measured(target, random.normal(target), seed)["roc_auc"]
        assert estimate.low is not None
        assert estimate.high is not None
        covered += estimate.low <= truth <= estimate.high
    assert covered >= 51


def test_a_difference_is_paired() -> None:
    random = np.random.default_rng(1)
    target = (random.random(1000) < 0.1).astype(float)
    good = random.normal(target * 2)
    same = difference(target, good, good)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    worse = difference(target, good + random.normal(size=1000), good)
    assert worse.high is not None
    assert worse.high < 0.0


def test_roc_auc_is_undefined_with_one_outcome_only() -> None:
    found = measured(np.zeros(50), np.linspace(0, 1, 50))
    assert found["roc_auc"].value is None
    assert found["accuracy"].value == pytest.approx(0.5)


def test_one_positive_row_gives_a_value_and_no_certainty() -> None:
    target, score = np.array([1.0, 0.0, 0.0]), np.array([0.9, 0.1, 0.2])
    assert measured(target, score)["roc_auc"] == Estimate(1.0, 0.0, 1.0)
    assert difference(target, score, -score) == Estimate(None, None, None)


@pytest.mark.parametrize("label", [2, -1, 0.5, float("nan"), "1", None, 10**400])
def test_other_labels_than_0_and_1_are_refused(label: object) -> None:
    assert [TASK.code(value) for value in (0, 1, 0.0, 1.0)] == [0.0, 1.0, 0.0, 1.0]
    with pytest.raises(InvalidLabelError, match="must be 0 or 1"):
        TASK.code(label)
