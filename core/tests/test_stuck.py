"""Stuck columns: the rule that the watch and training share."""

import numpy as np
import pytest

from watchkeeper.core import stuck
from watchkeeper.core.stuck import blocks, most_common_share, stuck_value, usual_share

VARIED = np.random.default_rng(1).normal(10.0, 1.0, 400)


def test_missing_values_are_rows_for_the_share_of_the_most_common_value() -> None:
    assert most_common_share(np.array([1.0, 1.0, 2.0, np.nan])) == 0.5
    assert most_common_share(np.array([])) == 0.0


def test_the_usual_share_is_the_largest_of_a_block_of_the_history() -> None:
    history = VARIED.copy()
    history[100:125] = 7.0
    assert usual_share(history, 100) == 0.25
    assert usual_share(np.insert(history, 50, np.nan), 100) == 0.25
    assert usual_share(np.array([]), 100) == 0.0


@pytest.mark.parametrize("at_once", [1, 50, stuck.VALUES_AT_ONCE])
@pytest.mark.parametrize("rows", [1, 3, 20, 1000])
def test_the_usual_share_is_that_of_each_block_however_many_are_sorted_at_a_time(
    rows: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stuck, "VALUES_AT_ONCE", at_once)
    random = np.random.default_rng(2)
    for length in (1, 2, 7, 300):
        history = random.integers(0, 5, length).astype(float)
        expected = max(map(most_common_share, blocks(history, rows)))
        assert usual_share(history, rows) == expected


def test_a_value_in_more_rows_than_usual_is_stuck() -> None:
    window = VARIED[:100].copy()
    window[:9] = 7.0
    assert stuck_value(window, 0.0, 0.2, categorical=False) is None
    window[:11] = 7.0
    assert stuck_value(window, 0.0, 0.2, categorical=False) == 7.0
    assert stuck_value(window, 0.05, 0.2, categorical=False) is None


def test_zeros_and_categories_are_stuck_only_if_they_fill_the_window() -> None:
    window = VARIED[:100].copy()
    window[:99] = 0.0
    assert stuck_value(window, 0.0, 0.2, categorical=False) is None
    assert stuck_value(np.zeros(100), 0.5, 0.2, categorical=False) == 0.0
    assert stuck_value(np.zeros(100), 1.0, 0.2, categorical=False) is None
    categories = np.repeat([0.0, 1.0], [1, 99])
    assert stuck_value(categories, 0.5, 0.2, categorical=True) is None
    assert stuck_value(np.ones(100), 0.5, 0.2, categorical=True) == 1.0
