"""Scenarios: drifts of the inputs, of the rule, of both."""

import numpy as np
import pytest
from ai4i_failure.plant import PLANT
from ai4i_failure.plant.machines import MEASUREMENTS, Fleet, Readings, speed_of
from ai4i_failure.plant.scenarios import SCENARIOS, STEADY, Rule, apply, failures


@pytest.fixture(scope="module")
def rows() -> Readings:
    return Fleet(seed=8).readings(20_000)


def test_the_steady_scenario_changes_nothing(rows: Readings) -> None:
    steady = apply(rows, STEADY)
    for name in MEASUREMENTS:
        assert np.array_equal(steady[name], rows[name]), name


def test_a_drift_of_inputs_leaves_the_rule_alone(rows: Readings) -> None:
    hot = SCENARIOS["hot-hall"]
    assert hot.rule == Rule()
    moved = apply(rows, hot)
    assert moved["air_temperature"] - rows["air_temperature"] == pytest.approx(6.0)
    assert moved["process_temperature"] - rows["process_temperature"] == pytest.approx(6.0)


def test_a_drift_of_the_rule_leaves_the_inputs_alone(rows: Readings) -> None:
    moved = apply(rows, SCENARIOS["brittle-tools"])
    for name in MEASUREMENTS:
        assert np.array_equal(moved[name], rows[name]), name
    before = apply(rows, STEADY)["machine_failure"]
    assert moved["machine_failure"].mean() > 2 * before.mean()
    assert (moved["machine_failure"] >= before).all()


def test_speed_follows_a_moved_torque_and_keeps_its_noise(rows: Readings) -> None:
    moved = apply(rows, SCENARIOS[PLANT.drift])
    noise = rows["rotational_speed"] - speed_of(rows["torque"])
    assert moved["rotational_speed"] - speed_of(moved["torque"]) == pytest.approx(noise, abs=0.6)


def test_the_drift_of_the_demo_has_failures_that_the_old_rule_does_not_explain(
    rows: Readings,
) -> None:
    moved = apply(rows, SCENARIOS[PLANT.drift])
    failed = moved["machine_failure"] == 1
    assert 0.15 <= failed.mean() <= 0.25
    old = np.logical_or.reduce(list(failures(moved, Rule()).values()))
    assert np.mean(old[failed]) < 0.25  # of what fails now, the old rule sees little
    assert np.mean(failed[old]) < 0.5  # and most of what it calls a failure is none


def test_a_failed_tool_stays_a_failure_in_every_scenario(rows: Readings) -> None:
    for scenario in SCENARIOS.values():
        assert apply(rows, scenario)["machine_failure"][rows["tool_failed"]].all()
