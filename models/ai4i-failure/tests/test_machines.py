"""The simulated machines follow the published rules."""

import numpy as np
import pytest
from ai4i_failure.plant.machines import MEASUREMENTS, Fleet, Readings, power_of, speed_of
from ai4i_failure.plant.scenarios import SCENARIOS, STEADY, Rule, apply, failures
from hypothesis import given, settings
from hypothesis import strategies as st

# Of the published table: mean, standard deviation, and the 5, 50 and 95 % quantiles.
PUBLISHED = {
    "air_temperature": (300.0, 2.0, 297.1, 300.1, 303.5),
    "rotational_speed": (1538.8, 179.3, 1332.0, 1503.0, 1868.0),
    "torque": (40.0, 9.97, 23.5, 40.1, 56.1),
    "tool_wear": (108.0, 63.7, 10.0, 108.0, 206.0),
}
NEAR = {"air_temperature": 0.8, "rotational_speed": 20.0, "torque": 0.5, "tool_wear": 7.0}
# Well within the ranges of the model.
RANGES = {
    "air_temperature": (285.0, 325.0),
    "process_temperature": (295.0, 335.0),
    "rotational_speed": (800.0, 3500.0),
    "torque": (0.0, 110.0),
    "tool_wear": (0.0, 400.0),
}


@pytest.fixture(scope="module")
def many() -> Readings:
    return Fleet(seed=3).readings(60_000)


def test_the_marginals_are_the_published_ones(many: Readings) -> None:
    for name, (mean, std, *quantiles) in PUBLISHED.items():
        near = NEAR[name]
        assert many[name].mean() == pytest.approx(mean, abs=near), name
        assert many[name].std() == pytest.approx(std, rel=0.05), name
        assert np.quantile(many[name], (0.05, 0.5, 0.95)) == pytest.approx(quantiles, abs=near)


def test_the_process_is_ten_kelvin_warmer_with_a_spread_of_one(many: Readings) -> None:
    gap = many["process_temperature"] - many["air_temperature"]
    assert gap.mean() == pytest.approx(10.0, abs=0.05)
    assert gap.std() == pytest.approx(1.0, abs=0.05)


def test_types_have_their_shares(many: Readings) -> None:
    shares = [np.mean(many["type"] == kind) for kind in ("L", "M", "H")]
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.01)


def test_speed_falls_with_torque_as_published(many: Readings) -> None:
    assert np.corrcoef(many["torque"], many["rotational_speed"])[0, 1] == pytest.approx(
        -0.875, abs=0.03
    )


def test_each_mode_fails_about_as_often_as_published(many: Readings) -> None:
    modes = {name: rows.mean() for name, rows in failures(many, Rule()).items()}
    # Types are 50/30/20 here and 60/30/10 there: fewer L pieces, fewer of them overstrained.
    assert modes == pytest.approx({"HDF": 0.0115, "PWF": 0.0095, "OSF": 0.0098}, abs=0.003)
    assert many["tool_failed"].mean() == pytest.approx(0.0046, abs=0.0015)
    assert many["random_failed"].mean() == pytest.approx(0.001, abs=0.0005)
    assert apply(many, STEADY)["machine_failure"].mean() == pytest.approx(0.034, abs=0.006)


def test_a_tool_ends_between_200_and_240_minutes_and_is_replaced() -> None:
    fleet = Fleet(seed=1, machines=20, gap=1.0)
    rows = fleet.readings(20 * 2000)
    for machine in set(rows["machine"]):
        wear = rows["tool_wear"][rows["machine"] == machine]
        new_tool = np.flatnonzero(np.diff(wear) < 0)
        assert len(new_tool) > 10
        assert wear[new_tool].min() >= 200
        assert wear.max() <= 245
        assert wear[new_tool + 1].max() <= 5
    failed = rows["tool_wear"][rows["tool_failed"]]
    assert len(failed) > 50
    assert failed.min() >= 200


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_stays_within_the_ranges_of_the_model(many: Readings, name: str) -> None:
    rows = apply(many, SCENARIOS[name])
    for column, (low, high) in RANGES.items():
        assert low <= rows[column].min(), column
        assert rows[column].max() <= high, column


def test_the_same_seed_makes_the_same_pieces_in_any_batches() -> None:
    whole = Fleet(seed=5).readings(777)
    fleet = Fleet(seed=5)
    portions = [fleet.readings(rows) for rows in (1, 300, 0, 476)]
    for name, column in whole.items():
        assert np.array_equal(column, np.concatenate([p[name] for p in portions])), name
    assert not np.array_equal(whole["torque"], Fleet(seed=6).readings(777)["torque"])


def test_machines_are_interleaved(many: Readings) -> None:
    assert len(set(many["machine"][:100])) == 100
    assert list(many["machine"][:100]) != list(many["machine"][100:200])


def test_windows_of_the_fleet_are_nearly_exchangeable(many: Readings) -> None:
    """Means of windows spread little more than means of shuffled rows would."""
    for name in MEASUREMENTS[1:]:
        windows = many[name][:60_000].reshape(-1, 400)
        expected = many[name].std() / np.sqrt(400)
        assert windows.mean(axis=1).std() < 1.6 * expected, name


rows_of_pieces = st.fixed_dictionaries(
    {
        "type": st.sampled_from("LMH"),
        "air_temperature": st.floats(290, 310).map(lambda x: round(x, 1)),
        "gap": st.floats(6, 13),
        "rotational_speed": st.integers(1100, 2900).map(float),
        "torque": st.floats(0, 90).map(lambda x: round(x, 1)),
        "tool_wear": st.integers(0, 250).map(float),
    }
)


@given(piece=rows_of_pieces)
@settings(max_examples=300, deadline=None)
def test_a_piece_fails_by_exactly_the_published_rules(piece: dict[str, object]) -> None:
    air, gap = float(piece["air_temperature"]), float(piece["gap"])  # type: ignore[arg-type]
    values = {**piece, "process_temperature": round(air + gap, 1)}
    row = {k: np.array([v], dtype=object if k == "type" else float) for k, v in values.items()}
    found = {name: bool(rows[0]) for name, rows in failures(row, Rule()).items()}
    speed, torque = float(values["rotational_speed"]), float(values["torque"])  # type: ignore[arg-type]
    watts = torque * speed * 2 * np.pi / 60
    limit = {"L": 11000, "M": 12000, "H": 13000}[str(values["type"])]
    difference = float(values["process_temperature"]) - air  # type: ignore[arg-type]
    assert found["HDF"] == (difference < 8.6 and speed < 1380)
    if min(abs(watts - 3500), abs(watts - 9000)) > 1e-6:
        assert found["PWF"] == (watts < 3500 or watts > 9000)
    assert found["OSF"] == (float(values["tool_wear"]) * torque > limit)  # type: ignore[arg-type]


def test_the_power_of_one_newton_metre_at_60_rpm_is_two_pi_watts() -> None:
    assert power_of({"torque": np.array([1.0]), "rotational_speed": np.array([60.0])}) == (
        pytest.approx(2 * np.pi)
    )


def test_more_torque_never_means_more_speed() -> None:
    assert (np.diff(speed_of(np.linspace(0.1, 110, 500))) <= 0).all()
