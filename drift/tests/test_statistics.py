import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import ks_2samp

from watchkeeper.drift.statistics.columns import Feature, encode
from watchkeeper.drift.statistics.effects import (
    commonest_share,
    distance,
    kolmogorov_smirnov,
    total_variation,
    z_score,
)
from watchkeeper.drift.statistics.null import MARGIN, SHORT_MARGIN, measure

HEAT = Feature("heat", "numeric")
KIND = Feature("kind", "categorical", categories=("L", "M"))
samples = arrays(float, st.integers(4, 60), elements=st.integers(-5, 5).map(float))


@settings(deadline=None)
@given(samples, samples)
def test_the_distance_of_numbers_is_the_statistic_of_the_test(
    one: np.ndarray, other: np.ndarray
) -> None:
    assert kolmogorov_smirnov(one, other) == pytest.approx(ks_2samp(one, other, method="asymp")[0])


@settings(deadline=None)
@given(samples, samples)
def test_distances_lie_between_0_and_1_and_are_symmetric(
    one: np.ndarray, other: np.ndarray
) -> None:
    for measured in (kolmogorov_smirnov, total_variation):
        assert 0 <= measured(one, other) <= 1 + 1e-12
        assert measured(one, other) == pytest.approx(measured(other, one))
        assert measured(one, one) == 0
    assert kolmogorov_smirnov(one, other) <= total_variation(one, other) + 1e-12


def test_the_distance_of_categories_is_the_share_that_moved() -> None:
    before, after = np.array([0.0] * 50 + [1.0] * 50), np.array([0.0] * 8 + [1.0] * 2)
    assert distance("categorical", before, after) == pytest.approx(0.3)


def test_missing_values_have_no_part_in_a_distance() -> None:
    assert distance("numeric", np.array([1.0, np.nan]), np.array([np.nan, 1.0])) == 0
    assert distance("numeric", np.array([1.0]), np.array([np.nan])) == 0


def test_the_z_score_divides_by_the_baselines_deviation() -> None:
    assert z_score(45.0, 40.0, 10.0) == 0.5
    assert z_score(45.0, 40.0, 0.0) == 0.0


def test_the_commonest_value_is_told_by_its_share() -> None:
    assert commonest_share(np.array([1.0, 1.0, 2.0, np.nan])) == 0.5
    assert commonest_share(np.array([])) == 0.0


def test_what_is_not_of_its_kind_is_missing_and_an_unknown_category_a_place_of_its_own() -> None:
    assert encode(KIND, ["L", "M", "X", None, 3]).tolist()[:3] == [0.0, 1.0, 2.0]
    assert np.isnan(encode(KIND, [None, 3])).all()
    assert encode(HEAT, [1, 2.5]).tolist() == [1.0, 2.5]
    assert np.isnan(encode(HEAT, [None, "7", True])).all()


def test_a_wandering_feature_has_a_higher_threshold_than_the_same_rows_shuffled() -> None:
    rng = np.random.default_rng(1)
    walk = np.cumsum(rng.normal(size=3000))
    null = measure([HEAT], {"heat": walk}, 500)
    shuffled = measure([HEAT], {"heat": rng.permutation(walk)}, 500)
    assert null.threshold["heat"] > 1.0, "no window can be told from such a walk"
    assert shuffled.threshold["heat"] < 0.2
    assert (null.block_rows, null.blocks, null.margin, null.note) == (500, 21, MARGIN, "")


def test_a_short_reference_has_shorter_blocks_a_larger_margin_and_a_note() -> None:
    null = measure([HEAT], {"heat": np.arange(600.0)}, 500)
    assert (null.block_rows, null.margin) == (150, SHORT_MARGIN)
    assert "600 rows" in null.note
    assert measure([HEAT], {"heat": np.arange(1.0)}, 500).blocks == 1
