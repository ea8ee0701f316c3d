"""Declared drifts: of the inputs, of the rule, of both."""

import numpy as np
import pytest

from watchkeeper.demo.worlds.ai4i import WORLD
from watchkeeper.demo.worlds.ai4i.machines import MEASUREMENTS, Fleet, Readings, speed_of
from watchkeeper.demo.worlds.ai4i.scenarios import SCENARIOS, STEADY, Rule, failures, played


@pytest.fixture(scope="module")
def rows() -> Readings:
    return Fleet(seed=8).readings(20_000)


def test_nothing_changes_while_the_scenario_is_steady(rows: Readings) -> None:
    steady = played(rows, STEADY)
    for name in MEASUREMENTS:
        assert np.array_equal(steady[name], rows[name]), name


def test_a_drift_of_inputs_leaves_the_rule_alone(rows: Readings) -> None:
    hot = SCENARIOS["hot-hall"]
    assert hot.rule == Rule()
    moved = played(rows, hot)
    assert moved["air_temperature"] - rows["air_temperature"] == pytest.approx(6.0)
    assert moved["process_temperature"] - rows["process_temperature"] == pytest.approx(6.0)


def test_a_drift_of_the_rule_leaves_the_inputs_alone(rows: Readings) -> None:
    moved = played(rows, SCENARIOS["brittle-tools"])
    for name in MEASUREMENTS:
        assert np.array_equal(moved[name], rows[name]), name
    before = played(rows, STEADY)["machine_failure"]
    assert moved["machine_failure"].mean() > 2 * before.mean()
    assert (moved["machine_failure"] >= before).all()


def test_speed_follows_a_moved_torque_and_keeps_its_noise(rows: Readings) -> None:
    moved = played(rows, SCENARIOS[WORLD.drift])
    noise = rows["rotational_speed"] - speed_of(rows["torque"])
    assert moved["rotational_speed"] - speed_of(moved["torque"]) == pytest.approx(noise, abs=0.6)


def test_the_story_has_many_failures_that_the_old_rule_does_not_explain(rows: Readings) -> None:
    moved = played(rows, SCENARIOS[WORLD.drift])
    failed = moved["machine_failure"] == 1
    assert 0.15 <= failed.mean() <= 0.25
    old = np.logical_or.reduce(list(failures(moved, Rule()).values()))
    assert np.mean(old[failed]) < 0.25  # of what fails now, the old rule sees little
    assert np.mean(failed[old]) < 0.5  # and most of what it calls a failure is none


def test_a_failed_tool_stays_a_failure_in_every_scenario(rows: Readings) -> None:
    for scenario in SCENARIOS.values():
        assert played(rows, scenario)["machine_failure"][rows["tool_failed"]].all()
