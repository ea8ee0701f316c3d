"""Machines: wear raises the probability of a failure, and maintenance lowers it."""

import msgspec
import numpy as np
import pytest
from sensor_fleet.plant.machines import LOADS, STEP, Machines, Step, advance, new_machines
from sensor_fleet.plant.scenarios import SCENARIOS, STEADY

MANY = 5_000


@pytest.fixture(scope="module")
def machines() -> Machines:
    """Machines after some usual steps."""
    random = np.random.default_rng(3)
    found = new_machines(MANY, random)
    for _ in range(10):
        found = advance(found, STEADY, random).machines
    return found


def step(machines: Machines, name: str = STEADY.name, seed: int = 4) -> Step:
    return advance(machines, SCENARIOS[name], np.random.default_rng(seed))


def failing(machines: Machines, wear: float) -> float:
    """Return the share of machines that fail in a step if all have this wear."""
    worn = msgspec.structs.replace(machines, wear=np.full(MANY, wear))
    return float(step(worn).failed.mean())


def test_wear_raises_the_probability_of_a_failure(machines: Machines) -> None:
    shares = [failing(machines, wear) for wear in (0.0, 0.5, 0.8, 1.0, 1.2)]
    assert shares == sorted(shares)
    assert shares[0] < 0.001
    assert shares[-1] > 0.5


def test_maintenance_lowers_it_and_follows_each_failure(machines: Machines) -> None:
    done = step(machines)
    maintained = done.failed | done.planned
    assert done.failed.any()
    assert done.planned.any()
    assert not (done.failed & done.planned).any()
    assert (done.machines.wear[maintained] == 0.0).all()
    assert (done.machines.hours[maintained] == 0.0).all()
    assert (done.machines.wear[~maintained] > machines.wear[~maintained]).all()
    assert (done.machines.hours[~maintained] == machines.hours[~maintained] + STEP).all()
    rule = STEADY.rule
    before = rule.hazard(machines.wear, machines.lack)[maintained]
    after = rule.hazard(done.machines.wear, done.machines.lack)[maintained]
    assert after.max() < 1e-4
    assert (after <= before).all()


def test_only_machines_that_are_due_are_maintained_as_planned(machines: Machines) -> None:
    planned = step(machines).planned
    assert (machines.hours >= machines.due)[planned].all()


def test_wear_grows_with_load(machines: Machines) -> None:
    grown = []
    for load in LOADS:
        loaded = msgspec.structs.replace(machines, load=np.full(MANY, load))
        done = step(loaded)
        kept = ~(done.failed | done.planned)
        grown.append(float((done.machines.wear - machines.wear)[kept].mean()))
    assert grown == sorted(grown)
    assert grown[-1] > 2 * grown[0]


def test_machines_pass_through_all_regimes_with_the_declared_shares(machines: Machines) -> None:
    for _ in range(20):
        machines = step(machines, seed=int(machines.hours.sum())).machines
    shares = np.bincount(machines.regime, minlength=len(LOADS)) / MANY
    assert shares == pytest.approx(STEADY.inputs.shares, abs=0.03)
