import sys

import numpy as np
import pytest

from watchkeeper.core.statistics import (
    kolmogorov_smirnov,
    roc_auc,
    roc_auc_difference,
    rounded,
)


@pytest.mark.parametrize(
    ("one", "other", "statistic"),
    [
        ([1.0, 2.0, 3.0, 4.0], [3.0, 4.0], 0.5),
        ([1.0, 1.0], [1.0], 0.0),
        ([1.0, 2.0], [3.0], 1.0),
        ([3.0, 1.0, 2.0], [2.0, 3.0, 1.0], 0.0),
    ],
)
def test_the_statistic_is_the_largest_distance_of_the_distribution_functions(
    one: list[float], other: list[float], statistic: float
) -> None:
    assert kolmogorov_smirnov(np.array(one), np.array(other)) == pytest.approx(statistic)


def test_the_roc_auc_counts_ordered_pairs_and_half_of_the_ties() -> None:
    value, variance = roc_auc(np.array([3.0, 2.0]), np.array([1.0, 2.0]))
    assert value == (1 + 1 + 1 + 0.5) / 4
    assert variance > 0
    assert roc_auc(np.ones(5), np.zeros(5)) == (1.0, pytest.approx(0.25 / 25))


def test_the_difference_of_two_scores_is_paired() -> None:
    random = np.random.default_rng(0)
    positives, negatives = random.normal(1.0, 1.0, 200), random.normal(0.0, 1.0, 800)
    same = (positives, negatives)
    assert roc_auc_difference(same, same) == (0.0, 0.0)
    noisy = positives + random.normal(0.0, 0.1, 200), negatives + random.normal(0.0, 0.1, 800)
    difference, variance = roc_auc_difference(noisy, same)
    assert difference == pytest.approx(roc_auc(*noisy)[0] - roc_auc(*same)[0])
    assert variance < 0.1 * roc_auc(*same)[1], "of unpaired scores it is twice that of one"


def test_the_variance_of_the_difference_is_that_of_repeated_samples() -> None:
    random = np.random.default_rng(1)
    found = []
    for _ in range(400):
        positives, negatives = random.normal(1.0, 1.0, 60), random.normal(0.0, 1.0, 200)
        other = positives + random.normal(0.0, 1.0, 60), negatives + random.normal(0.0, 1.0, 200)
        found.append(roc_auc_difference((positives, negatives), other))
    differences, variances = np.array(found).T
    assert variances.mean() == pytest.approx(differences.var(), rel=0.2)


def test_a_single_row_of_an_outcome_has_an_infinite_variance() -> None:
    one = np.array([1.0]), np.array([0.0, 0.5])
    assert roc_auc(*one) == (1.0, float("inf"))
    assert roc_auc_difference(one, one) == (0.0, float("inf"))


@pytest.mark.parametrize("value", [sys.float_info.max, -sys.float_info.max, np.inf, np.nan])
def test_rounding_keeps_numbers_that_cannot_be_rounded_up(value: float) -> None:
    found = rounded(np.array([value, 1000.3]), 16, least_exponent=1)
    assert np.array_equal(found, [value, 1000.296875], equal_nan=True)
