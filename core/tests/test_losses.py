"""The losses of all tasks: bounded, 0 for a perfect score, and better for better scores."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchkeeper.core.block_means import block_length, mean_of_dependent
from watchkeeper.core.head import Head
from watchkeeper.core.tasks import task_of
from watchkeeper.core.tasks.base import Labelled

BINARY = task_of(Head("p", "p.skops", "predict_proba", label="failed"))
DECISION = task_of(Head("d", "d.skops", "decision_function", label="failed", threshold=2.0))
STATE = task_of(
    Head("s", "s.skops", "predict_proba", task="multiclass", label="s", classes=("a", "b", "c"))
)
LIFE = task_of(Head("life", "life.skops", "predict", task="regression", label="life"))
UNUSUAL = task_of(Head("u", "u.skops", "score_samples", task="anomaly"))

any_float = st.floats(allow_nan=True, allow_infinity=True)


def labelled(task: Any, target: Any, *scores: Any) -> Labelled:
    columns = dict(zip(task.scores, map(np.array, scores), strict=True))
    return Labelled(np.array(target, dtype=float), columns)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), any_float), min_size=1, max_size=20))
@pytest.mark.parametrize("task", [BINARY, DECISION], ids=["probability", "decision"])
def test_the_losses_of_a_binary_head_are_from_0_to_1(
    task: Any, rows: list[tuple[float, float]]
) -> None:
    losses = task.losses(labelled(task, *zip(*rows, strict=True)), 1.0)
    assert losses.shape == (len(rows),)
    assert ((losses >= 0) & (losses <= 1)).all()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 1.0, 2.0]), any_float, any_float, any_float),
        min_size=1,
        max_size=20,
    )
)
def test_the_losses_of_a_multi_class_head_are_from_0_to_1(rows: list[tuple[float, ...]]) -> None:
    losses = STATE.losses(labelled(STATE, *zip(*rows, strict=True)), 1.0)
    assert losses.shape == (len(rows),)
    assert ((losses >= 0) & (losses <= 1)).all()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(allow_nan=False, allow_infinity=False), any_float),
        min_size=1,
        max_size=20,
    ),
    st.floats(0.0, 1e9),
)
def test_the_losses_of_a_regression_are_from_0_to_1(
    rows: list[tuple[float, float]], scale: float
) -> None:
    losses = LIFE.losses(labelled(LIFE, *zip(*rows, strict=True)), scale)
    assert losses.shape == (len(rows),)
    assert ((losses >= 0) & (losses <= 1)).all()


def test_the_losses_of_probabilities_are_brier_scores() -> None:
    assert BINARY.losses(labelled(BINARY, [1, 0, 1], [0.9, 0.2, 0.0]), 1.0) == pytest.approx(
        [0.01, 0.04, 1.0]
    )
    rows = labelled(STATE, [0, 2, 1], [1.0, 0.5, 1.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0])
    assert STATE.losses(rows, 1.0) == pytest.approx([0.0, 0.75, 1.0])


def test_a_score_that_is_no_probability_loses_by_its_decision() -> None:
    rows = labelled(DECISION, [1, 1, 0, 0, 1], [5.0, 1.0, 5.0, 1.0, np.nan])
    assert DECISION.losses(rows, 1.0).tolist() == [0.0, 1.0, 1.0, 0.0, 1.0]


def test_an_error_beyond_the_scale_of_unseen_rows_counts_as_1() -> None:
    random = np.random.default_rng(1)
    unseen = labelled(LIFE, random.normal(size=1000), np.zeros(1000))
    scale = LIFE.loss_scale(unseen)
    assert scale == pytest.approx(2.58, abs=0.3)
    rows = labelled(LIFE, [0.0, 0.0, 0.0], [0.0, scale / 2, 100 * scale])
    assert LIFE.losses(rows, scale) == pytest.approx([0.0, 0.5, 1.0])
    assert LIFE.losses(rows, 0.0).tolist() == [0.0, 1.0, 1.0]


def test_a_head_without_labels_has_no_losses() -> None:
    assert UNUSUAL.loss == ""
    assert not len(UNUSUAL.losses(labelled(UNUSUAL, [], []), 1.0))


def autoregressive(random: Any, rows: int, correlation: float) -> Any:
    values = random.normal(size=rows)
    for row in range(1, rows):
        values[row] = correlation * values[row - 1] + values[row] * (1 - correlation**2) ** 0.5
    return 1 / (1 + np.exp(-values))


def test_blocks_are_longer_where_neighbours_are_alike() -> None:
    random = np.random.default_rng(2)
    assert block_length(random.random(5000), 50) == 50
    assert (block_length(autoregressive(random, 50_000, 0.98), 50) or 0) > 50
    assert block_length(np.zeros(5000), 50) == 50
    assert block_length(np.linspace(0, 1, 3000), 50) is None, "a trend has no usual mean"


def test_too_few_rows_do_not_tell_how_long_they_depend_on_each_other() -> None:
    random = np.random.default_rng(2)
    assert block_length(random.random(1000), 50) == 50
    for rows in (100, 500, 999):
        assert block_length(random.random(rows), 50) is None
        assert block_length(autoregressive(random, rows, 0.99), 50) is None


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_the_interval_of_dependent_rows_has_its_coverage(correlation: float) -> None:
    random = np.random.default_rng(3)
    found = [mean_of_dependent(autoregressive(random, 2000, correlation)) for _ in range(200)]
    inside = np.mean([(x.low or 1.0) <= 0.5 <= (x.high or 0.0) for x in found])
    assert inside >= 0.9


def test_losses_that_are_all_0_prove_no_more_than_the_rule_of_three() -> None:
    found = mean_of_dependent(np.zeros(300))
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(3 / 300, rel=0.05)
