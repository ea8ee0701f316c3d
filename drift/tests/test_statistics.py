import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import ks_2samp

from watchkeeper.core.statistics import kolmogorov_smirnov
from watchkeeper.drift.statistics.columns import Feature, encode
from watchkeeper.drift.statistics.effects import (
    effect_size,
    z_score,
)
from watchkeeper.drift.statistics.reference_variation import (
    PARTS,
    ReferenceVariation,
    margin,
    measure_variation,
)

PRESSURE = Feature("inlet_pressure", "numeric")
GRADE = Feature("grade", "categorical", categories=("L", "M"))
samples = arrays(float, st.integers(4, 60), elements=st.integers(-5, 5).map(float))


@settings(deadline=None)
@given(samples, samples)
def test_the_effect_size_of_numbers_is_the_statistic_of_the_test(
    one: np.ndarray, other: np.ndarray
) -> None:
    assert kolmogorov_smirnov(one, other) == pytest.approx(ks_2samp(one, other, method="asymp")[0])


@settings(deadline=None)
@given(samples, samples)
def test_effect_sizes_are_between_0_and_1_and_symmetric(one: np.ndarray, other: np.ndarray) -> None:
    one, other = np.sort(one), np.sort(other)
    for kind in ("numeric", "categorical"):
        assert 0 <= effect_size(kind, one, other) <= 1 + 1e-12
        assert effect_size(kind, one, other) == pytest.approx(effect_size(kind, other, one))
        assert effect_size(kind, one, one) == pytest.approx(0)
    assert effect_size("numeric", one, other) == pytest.approx(kolmogorov_smirnov(one, other))
    assert effect_size("numeric", one, other) <= effect_size("categorical", one, other) + 1e-12


def test_the_effect_size_of_categories_is_the_share_that_moved() -> None:
    before, after = np.array([0.0] * 50 + [1.0] * 50), np.array([0.0] * 8 + [1.0] * 2)
    assert effect_size("categorical", before, after) == pytest.approx(0.3)


def test_missing_values_do_not_count_for_an_effect_size() -> None:
    assert effect_size("numeric", np.array([1.0]), np.array([np.nan, 1.0])) == 0
    assert effect_size("numeric", np.array([1.0]), np.array([np.nan])) == 0


def test_the_z_score_divides_by_the_baselines_deviation() -> None:
    assert z_score(45.0, 40.0, 10.0) == 0.5
    assert z_score(45.0, 40.0, 0.0) == 0.0


def test_a_value_of_another_type_is_missing_and_an_unknown_category_has_an_index() -> None:
    assert encode(GRADE, ["L", "M", "X", None, 3]).tolist()[:3] == [0.0, 1.0, 2.0]
    assert np.isnan(encode(GRADE, [None, 3])).all()
    assert encode(PRESSURE, [1, 2.5]).tolist() == [1.0, 2.5]
    assert np.isnan(encode(PRESSURE, [None, "7", True])).all()


def test_the_last_digits_of_a_score_are_no_drift() -> None:
    score = Feature("p", "score")
    rng = np.random.default_rng(0)
    seldom = rng.random(500).tolist()
    reference = encode(score, [1.0] * 500 + [0.0] * 500 + [4711.1] * 500 + seldom)
    added = [1.0 - 2e-16] * 250 + [1.0 + 2e-16] * 250 + [1e-17] * 500
    window = encode(score, [*added, *[4711.1 * (1 + 2e-16)] * 500, *seldom])
    assert kolmogorov_smirnov(reference, window) == 0.0
    assert np.abs(encode(score, seldom) - seldom).max() < 2e-5
    assert encode(score, [-0.25, 123.0, 1e300]).tolist() == pytest.approx(
        [-0.25, 123.0, 1e300], rel=1e-4
    )


def threshold(variation: ReferenceVariation, part: int = PARTS) -> float:
    return variation.thresholds[part - 1]["inlet_pressure"]


def test_a_wandering_feature_has_a_higher_threshold_than_its_shuffled_rows() -> None:
    rng = np.random.default_rng(1)
    walk = np.cumsum(rng.normal(size=3000))
    variation = measure_variation([PRESSURE], {"inlet_pressure": walk}, 500)
    shuffled = measure_variation([PRESSURE], {"inlet_pressure": rng.permutation(walk)}, 500)
    assert threshold(variation) > 1.0, "no window can be distinguished from such a walk"
    assert threshold(shuffled) < 0.2
    effects = [threshold(shuffled, 1), threshold(shuffled, 2), threshold(shuffled) / margin(6)]
    assert effects == sorted(effects, reverse=True), "short blocks vary more"
    assert (variation.block_rows, variation.blocks, variation.note) == (500, 21, "")
    assert variation.margin == margin(6)


@settings(deadline=None)
@given(arrays(float, st.integers(2, 60), elements=st.integers(-5, 5).map(float)))
def test_a_threshold_is_the_largest_effect_of_a_block_on_the_other_rows(values: np.ndarray) -> None:
    window = 8
    variation = measure_variation([PRESSURE], {"inlet_pressure": values}, window)
    length = variation.block_rows
    effects = []
    for start in range(0, len(values) - length + 1, max(1, length // 4)):
        rest = np.delete(values, slice(start, start + length))
        effects.append(kolmogorov_smirnov(rest, values[start : start + length]))
    assert threshold(variation) == pytest.approx(variation.margin * max(effects))


@given(st.integers(2000, 100_000))
def test_the_margin_falls_without_a_jump_as_the_history_grows(rows: int) -> None:
    assert 0 < margin(rows / 500) - margin((rows + 1) / 500) < 0.001
    assert margin(4) == 2.0
    assert margin(16) == 1.5


def test_a_short_reference_has_shorter_blocks_a_larger_margin_and_a_note() -> None:
    variation = measure_variation([PRESSURE], {"inlet_pressure": np.arange(600.0)}, 500)
    assert (variation.block_rows, variation.margin) == (150, 2.0)
    assert "600 rows" in variation.note


@pytest.mark.parametrize("known", [[], [1.0]])
def test_a_feature_without_rows_can_never_alarm(known: list[float]) -> None:
    values = np.array([*known, np.nan, np.nan])
    assert threshold(measure_variation([PRESSURE], {"inlet_pressure": values}, 500)) > 1
