"""Scenarios: each changes what it declares and nothing else."""

import numpy as np
import pytest
from sensor_fleet.plant import PLANT
from sensor_fleet.plant.scenarios import SCENARIOS, STEADY
from sensor_fleet.plant.simulation import Fleet, Turn, new_fleet, next_turn

MANY = 4_000


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    """A fleet after some usual turns."""
    found = new_fleet(1, MANY)
    for number in range(10):
        found, _ = next_turn(found, number, 2, STEADY)
    return found


def turn(fleet: Fleet, name: str) -> tuple[Fleet, Turn]:
    return next_turn(fleet, 10, 2, SCENARIOS[name])


def changed(one: Turn, other: Turn, rows: np.ndarray) -> set[str]:
    """Return the columns that differ in some of the rows."""
    return {
        name
        for name, values in one.columns.items()
        if not np.array_equal(values[rows], other.columns[name][rows])
    }


def test_each_kind_of_change_is_declared_as_what_it_is() -> None:
    for scenario in SCENARIOS.values():
        kind = scenario.description.partition(":")[0]
        moved = (scenario.inputs != STEADY.inputs, scenario.rule != STEADY.rule)
        expected = {"inputs": (True, False), "rule": (False, True), "both": (True, True)}
        assert moved == expected.get(kind, (False, False)), scenario.name


def test_a_heat_wave_moves_two_temperatures_and_no_failure(fleet: Fleet) -> None:
    (usual, before), (hot, after) = (turn(fleet, name) for name in ("steady", "heat-wave"))
    assert np.array_equal(before.failed, after.failed)
    for name in ("wear", "load", "lack", "hours"):
        assert np.array_equal(getattr(hot.machines, name), getattr(usual.machines, name)), name
    works = (hot.faults.left == 0) & (usual.faults.left == 0)
    temperatures = {"bearing_temperature", "ambient_temperature"}
    assert changed(before, after, works) == temperatures
    for name in temperatures:
        moved = after.columns[name][works] - before.columns[name][works]
        assert moved == pytest.approx(9.0, abs=0.11)


def test_a_thin_lubricant_moves_failures_and_no_reading_of_a_running_machine(fleet: Fleet) -> None:
    (_, before), (_, after) = (turn(fleet, name) for name in ("steady", "thin-lubricant"))
    assert (after.failed >= before.failed).all()
    assert after.failed.sum() > 2 * before.failed.sum()
    runs = ~after.failed & (before.planned == after.planned)
    assert changed(before, after, runs) == set()


def test_an_overload_moves_load_and_what_follows_and_leaves_the_air_alone(fleet: Fleet) -> None:
    (usual, before), (loaded, after) = (turn(fleet, name) for name in ("steady", PLANT.drift))
    assert np.array_equal(loaded.machines.lack, usual.machines.lack)
    works = (loaded.faults.left == 0) & (usual.faults.left == 0)
    same = changed(before, after, works)
    assert not {"machine_type", "ambient_temperature"} & same
    assert (loaded.machines.load > usual.machines.load).mean() > 0.95


def test_in_an_overload_failures_come_from_low_pressure_rather_than_from_wear(fleet: Fleet) -> None:
    for number in range(10, 40):
        before = fleet.machines
        fleet, done = next_turn(fleet, number, 2, SCENARIOS[PLANT.drift])
    assert before.lack[done.failed].mean() > 1.0
    assert before.wear[done.failed].mean() < before.wear.mean() + 0.1


def test_an_unchanged_scenario_has_failures_of_worn_machines(fleet: Fleet) -> None:
    _, done = turn(fleet, "steady")
    assert fleet.machines.wear[done.failed].mean() > fleet.machines.wear.mean() + 0.4
