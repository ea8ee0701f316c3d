"""Machines whose bearings wear, fail and are maintained. No sensor is in this module."""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from sensor_fleet.plant.scenarios import Scenario

Numbers = NDArray[np.float64]
Places = NDArray[np.int64]
Mask = NDArray[np.bool_]

STEP: Final = 4.0  # h, from one reading of a machine to its next
TYPES: Final = ("centrifugal", "gear", "screw")
SITES: Final = 6  # around the globe, four hours of local time apart
LOADS: Final = np.array([0.1, 0.6, 0.9])  # of the rated load: idle, normal, heavy
LOAD_SPREAD: Final = 0.06
LEAST_LOAD: Final = 0.02
STAYS: Final = 0.75  # probability that a machine keeps its regime for a step
USUAL_LIFE: Final = 155.0  # h, until the wear of a usual machine is 1
USUAL_STRESS: Final = 0.78  # of the loads of a usual machine, see `_growth`
GROWTH_SPREAD: Final = 0.5  # of the logarithm of the growth in a step
PRESSURE_MEMORY: Final = 24.0  # steps until the correlation of the lack falls to 1/e
PLANNED: Final = (140.0, 200.0)  # h until the next planned maintenance, uniform
CREW: Final = 0.3  # probability that a machine that is due is maintained in a step


class Machines(msgspec.Struct, frozen=True):
    """The state of all machines; each array has the shape (machines,).

    ``kind`` and ``regime`` are places in :data:`TYPES` and :data:`LOADS`; ``site`` is from 0 on.
    ``load`` is a share of the rated load. ``wear`` is 0 after maintenance. ``lack`` is the lack of
    pressure in standard deviations. ``hours`` and ``due`` are hours since the last maintenance:
    now, and at the next planned one.
    """

    kind: Places
    site: Places
    regime: Places
    load: Numbers
    wear: Numbers
    lack: Numbers
    hours: Numbers
    due: Numbers


class Step(msgspec.Struct, frozen=True):
    """The machines after a step, and which of them (machines,) were maintained in it, and why."""

    machines: Machines
    failed: Mask
    planned: Mask


def new_machines(count: int, random: np.random.Generator) -> Machines:
    """Return machines in the middle of their lives."""
    due = random.uniform(*PLANNED, count)
    hours = np.floor(random.random(count) * due / STEP) * STEP
    regime = random.integers(0, len(LOADS), count)
    return Machines(
        kind=np.arange(count) % len(TYPES),
        site=random.integers(0, SITES, count),
        regime=regime,
        load=LOADS[regime],
        wear=0.8 * hours / USUAL_LIFE,
        lack=random.standard_normal(count),
        hours=hours,
        due=due,
    )


def advance(machines: Machines, scenario: Scenario, random: np.random.Generator) -> Step:
    """Advance all machines by :data:`STEP` hours.

    A machine that fails is repaired at once, and some of the machines that are due are maintained.
    Both reset the wear. Each scenario draws the same random numbers, so that a scenario changes
    what it declares only.
    """
    inputs, count = scenario.inputs, len(machines.wear)
    chance = -np.expm1(-STEP * scenario.rule.hazard(machines.wear, machines.lack))
    failed = random.random(count) < chance
    planned = (random.random(count) < CREW) & (machines.hours >= machines.due) & ~failed
    maintained = failed | planned
    drawn = np.searchsorted(np.cumsum(inputs.shares)[:-1], random.random(count), side="right")
    regime = np.where(random.random(count) < STAYS, machines.regime, drawn)
    load = LOADS[regime] + inputs.load + random.normal(0.0, LOAD_SPREAD, count)
    wear = machines.wear + inputs.growth * _growth(machines.load, random)
    keeps = np.exp(-1.0 / PRESSURE_MEMORY)
    lack = keeps * machines.lack + np.sqrt(1 - keeps**2) * random.standard_normal(count)
    due = random.uniform(*PLANNED, count)
    after = msgspec.structs.replace(
        machines,
        regime=regime,
        load=np.maximum(load, LEAST_LOAD),
        wear=np.where(maintained, 0.0, wear),
        lack=lack,
        hours=np.where(maintained, 0.0, machines.hours + STEP),
        due=np.where(maintained, due, machines.due),
    )
    return Step(after, failed, planned)


def _growth(load: Numbers, random: np.random.Generator) -> Numbers:
    """Return the growth of wear in a step; it rises with the square of the load."""
    stress = (0.4 + load**2) / USUAL_STRESS
    spread = random.normal(-(GROWTH_SPREAD**2) / 2, GROWTH_SPREAD, len(load))
    return np.asarray(STEP / USUAL_LIFE * stress * np.exp(spread))
