"""The simulation: from the state of a fleet to its next turn. No clock, no file, no database.

A turn is one step of all machines. What happens in it follows from the seed, its number, the
scenario and the state before it. So a fleet continues from a stored state as if it had never
stopped.
"""

from typing import Any, Final

import msgspec
import numpy as np

from sensor_fleet.plant.faults import Faults, break_sensors, no_faults
from sensor_fleet.plant.machines import STEP, Machines, Mask, advance, new_machines
from sensor_fleet.plant.scenarios import Scenario
from sensor_fleet.plant.sensors import Columns, measured

HORIZON: Final = 24.0  # h; a label says whether a machine fails so soon after a reading
HORIZON_TURNS: Final = round(HORIZON / STEP)


class Fleet(msgspec.Struct, frozen=True):
    """All machines and their broken sensors after a turn."""

    machines: Machines
    faults: Faults


class Turn(msgspec.Struct, frozen=True):
    """What happened in a turn, and what the sensors show at its end.

    ``columns`` are the request columns by name. ``failed`` and ``planned`` say which machines
    failed, and which were maintained as planned, before the reading. All shapes are (machines,).
    """

    columns: Columns
    failed: Mask
    planned: Mask


def new_fleet(seed: int, machines: int) -> Fleet:
    """Return a fleet before its first turn."""
    return Fleet(new_machines(machines, np.random.default_rng([seed])), no_faults(machines))


def next_turn(fleet: Fleet, number: int, seed: int, scenario: Scenario) -> tuple[Fleet, Turn]:
    """Return the fleet after a turn, and the turn.

    Args:
        fleet: the fleet before it.
        number: the number of the turn, from 0 at the beginning of a year.
        seed: starts every random choice of the turn.
        scenario: the scenario in force.
    """
    random = np.random.default_rng([seed, number])
    step = advance(fleet.machines, scenario, random)
    true = measured(step.machines, number * STEP, scenario.inputs.ambient, random)
    faults, shown = break_sensors(fleet.faults, true, random)
    return Fleet(step.machines, faults), Turn(shown, step.failed, step.planned)


def encode(fleet: Fleet) -> bytes:
    """Return a fleet as JSON, which keeps each number exactly."""
    return msgspec.json.encode(
        {
            part: {name: values.tolist() for name, values in msgspec.structs.asdict(arrays).items()}
            for part, arrays in msgspec.structs.asdict(fleet).items()
        }
    )


def decode(content: bytes) -> Fleet:
    """Return the fleet that :func:`encode` has encoded."""
    parts = msgspec.json.decode(content, type=dict[str, dict[str, list[Any]]])
    arrays = {
        part: {name: np.array(values) for name, values in columns.items()}
        for part, columns in parts.items()
    }
    return Fleet(Machines(**arrays["machines"]), Faults(**arrays["faults"]))
