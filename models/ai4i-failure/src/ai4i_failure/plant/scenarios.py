"""The scenarios: changes of the inputs, of the rule from inputs to failures, or of both.

A scenario transforms rows, so it applies to simulated machines and to the published table. First
the measurements move, then the scenario's rule decides again which pieces fail.
"""

from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ai4i_failure.plant.machines import Readings, power_of, speed_of
from watchkeeper.demo import plants


class Inputs(msgspec.Struct, frozen=True):
    """How the measurements move: temperatures in K, torque in Nm. The speed follows the torque."""

    air: float = 0.0
    cooling: float = 0.0  # subtracted from the process temperature
    torque: float = 0.0


class Rule(msgspec.Struct, frozen=True):
    """When a piece fails, besides at the tool's end (TWF) and by chance (RNF); as published.

    HDF: process minus air temperature under ``heat_gap`` (K) and speed under ``heat_speed`` (rpm);
    PWF: power (W) under ``power_low`` or over ``power_high``;
    OSF: wear times torque (min Nm) over ``strain`` for the types L, M and H.
    """

    heat_gap: float = 8.6
    heat_speed: float = 1380.0
    power_low: float = 3500.0
    power_high: float = 9000.0
    strain: tuple[float, float, float] = (11000.0, 12000.0, 13000.0)


Scenario = plants.Scenario[Inputs, Rule]
STEADY: Final = Scenario(plants.STEADY, "nothing changes", Inputs(), Rule())
SCENARIOS: Final = plants.by_name(
    STEADY,
    Scenario("hot-hall", "inputs: the hall is 6 K warmer in summer", Inputs(air=6.0), Rule()),
    Scenario(
        "brittle-tools",
        "rule: cheaper tools break at three quarters of the strain",
        Inputs(),
        Rule(strain=(8250.0, 9000.0, 9750.0)),
    ),
    Scenario(
        "new-alloy",
        "both: a harder alloy in a hotter hall, with stronger drives and tools; pieces now fail "
        "at too little power rather than too much",
        Inputs(air=10.0, torque=10.0),
        Rule(power_low=6400.0, power_high=12000.0, strain=(16000.0, 17000.0, 18000.0)),
    ),
)


def apply(readings: Readings, scenario: Scenario) -> Readings:
    """Return the rows under a scenario, with their ``machine_failure`` (0 or 1)."""
    moved = _moved(readings, scenario.inputs)
    failed = readings["tool_failed"] | readings["random_failed"]
    for mode in failures(moved, scenario.rule).values():
        failed = failed | mode
    return moved | {"machine_failure": failed.astype(np.int64)}


def failures(readings: Readings, rule: Rule) -> dict[str, NDArray[np.bool_]]:
    """Return by failure mode which pieces (rows,) fail for a reason in the measurements."""
    gap = readings["process_temperature"] - readings["air_temperature"]
    power = power_of(readings)
    kinds: list[NDArray[Any]] = [readings["type"] == kind for kind in ("L", "M", "H")]
    return {
        # The gap is not rounded: the published labels were computed that way.
        "HDF": (gap < rule.heat_gap) & (readings["rotational_speed"] < rule.heat_speed),
        "PWF": (power < rule.power_low) | (power > rule.power_high),
        "OSF": readings["tool_wear"] * readings["torque"] > np.select(kinds, rule.strain),
    }


def _moved(readings: Readings, inputs: Inputs) -> Readings:
    moved = dict(readings)
    if inputs.torque:
        torque = np.maximum(np.round(readings["torque"] + inputs.torque, 1), 0.1)
        slower = speed_of(torque) - speed_of(readings["torque"])
        moved["torque"] = torque
        moved["rotational_speed"] = np.round(readings["rotational_speed"] + slower)
    moved["air_temperature"] = np.round(readings["air_temperature"] + inputs.air, 1)
    moved["process_temperature"] = np.round(
        readings["process_temperature"] + inputs.air - inputs.cooling, 1
    )
    return moved
