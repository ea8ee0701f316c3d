"""Sensors: seasons, physical ranges, and faults that say nothing about the machine."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sensor_fleet.model import COLUMNS
from sensor_fleet.plant.faults import KINDS, SENSORS, Faults, break_sensors, no_faults
from sensor_fleet.plant.machines import Machines, new_machines
from sensor_fleet.plant.sensors import Columns, ambient, measured

MANY = 3_000
DAY, YEAR = 24.0, 365.25 * 24


def distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the Kolmogorov-Smirnov statistic of two samples."""
    places = np.sort(np.concatenate([one, other]))
    shares = (np.searchsorted(np.sort(x), places, side="right") / len(x) for x in (one, other))
    return float(np.abs(np.subtract(*shares)).max())


@pytest.fixture(scope="module")
def machines() -> Machines:
    return new_machines(MANY, np.random.default_rng(3))


@pytest.fixture(scope="module")
def true(machines: Machines) -> Columns:
    return measured(machines, 0.0, 0.0, np.random.default_rng(4))


def test_halls_are_warm_in_the_afternoon_and_in_summer() -> None:
    site = np.zeros(1, dtype=np.int64)
    hours = np.arange(0, DAY)
    day = [ambient(site, hour)[0] for hour in hours]
    assert hours[int(np.argmax(day))] == 15.0
    months = [ambient(site, month / 12 * YEAR)[0] for month in range(12)]
    assert int(np.argmax(months)) in (6, 7)
    assert int(np.argmin(months)) in (0, 1)
    south = [ambient(site + 1, month / 12 * YEAR)[0] for month in range(12)]
    assert int(np.argmax(south)) in (0, 1)


def test_neither_the_day_nor_the_season_is_a_drift_of_the_whole_fleet(machines: Machines) -> None:
    """The halls are in both hemispheres, and it is all times of the day at once."""
    random = np.random.default_rng(6)

    def day(first: float) -> Columns:
        turns = [measured(machines, first + hour, 0.0, random) for hour in np.arange(0, DAY, 4.0)]
        return {name: np.concatenate([turn[name] for turn in turns]) for name in turns[0]}

    january = day(0.0)
    for month in range(1, 12):
        later = day(round(month / 12 * YEAR))
        for name in ("ambient_temperature", "bearing_temperature"):
            assert distance(january[name], later[name]) < 0.15, (name, month)


def test_values_are_within_the_declared_ranges(true: Columns) -> None:
    for column in COLUMNS:
        if column.categories:
            assert set(true[column.name]) == set(column.categories)
        else:
            assert column.minimum is not None
            assert column.maximum is not None
            assert column.minimum <= true[column.name].min()
            assert true[column.name].max() <= column.maximum


def broken(true: Columns, kind: str) -> tuple[Faults, Columns]:
    """Show the values with a fault of this kind of the first sensor of all machines."""
    rows = np.arange(MANY, dtype=float)
    faults = Faults(
        left=np.full(MANY, 5),
        sensor=np.zeros(MANY, dtype=np.int64),
        kind=np.full(MANY, KINDS.index(kind)),
        held=rows,
    )
    return break_sensors(faults, true, np.random.default_rng(5))


def test_a_fault_changes_what_its_sensor_shows_and_nothing_else(true: Columns) -> None:
    name, others = SENSORS[0], [column.name for column in COLUMNS if column.name != SENSORS[0]]
    shown = {kind: broken(true, kind)[1] for kind in KINDS}
    assert np.array_equal(shown["stuck"][name], np.arange(MANY))
    assert (shown["zero"][name] == 0.0).all()
    noisy = shown["noise"][name] / true[name]
    assert noisy.std() > 0.2
    assert 0.4 < noisy.min() < noisy.max() < 1.6
    for kind in KINDS:
        for other in others:
            assert np.array_equal(shown[kind][other], true[other]), (kind, other)


def test_a_fault_ends(true: Columns) -> None:
    faults, shown = broken(true, "zero")
    for _ in range(4):
        assert (shown[SENSORS[0]] == 0.0).all()
        faults, shown = break_sensors(faults, true, np.random.default_rng(5))
    assert (faults.left == 0).sum() > 0.99 * MANY
    assert np.mean(shown[SENSORS[0]] == true[SENSORS[0]]) > 0.99


def test_a_stuck_sensor_holds_the_value_of_its_first_step(true: Columns) -> None:
    random = np.random.default_rng(6)
    faults, first = no_faults(MANY), true
    for _ in range(40):
        faults, first = break_sensors(no_faults(MANY), true, random)
        if ((faults.kind == KINDS.index("stuck")) & (faults.left > 0)).any():
            break
    (places,) = np.nonzero((faults.kind == KINDS.index("stuck")) & (faults.left > 0))
    other = {n: v if v.dtype == object else v * 2 for n, v in true.items()}
    _, later = break_sensors(faults, other, random)
    for place in places:
        name = SENSORS[faults.sensor[place]]
        assert later[name][place] == first[name][place] == true[name][place]
