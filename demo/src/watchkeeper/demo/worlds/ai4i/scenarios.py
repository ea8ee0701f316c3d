"""What may change: the inputs, the rule from inputs to failure, or both. All declared here.

A scenario is a transform of rows, so that it drifts generated machines and a published table
alike: first the measurements move, then the scenario's rule decides anew which pieces fail.
"""

from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.demo import worlds
from watchkeeper.demo.worlds.ai4i.machines import Readings, power_of, speed_of


class Inputs(msgspec.Struct, frozen=True):
    """How the measurements move: temperatures in K, torque in Nm; the speed follows the torque."""

    air: float = 0.0
    cooling: float = 0.0  # by how much less the process is warmer than the air
    torque: float = 0.0


class Rule(msgspec.Struct, frozen=True):
    """When a piece fails, as published, beside the tool's end (TWF) and chance (RNF).

    HDF: process minus air temperature under ``heat_gap`` (K) and speed under ``heat_speed`` (rpm);
    PWF: power (W) under ``power_low`` or over ``power_high``;
    OSF: wear times torque (min Nm) over ``strain`` for the types L, M and H.
    """

    heat_gap: float = 8.6
    heat_speed: float = 1380.0
    power_low: float = 3500.0
    power_high: float = 9000.0
    strain: tuple[float, float, float] = (11000.0, 12000.0, 13000.0)


Scenario = worlds.Scenario[Inputs, Rule]
STEADY: Final = Scenario(worlds.STEADY, "nothing changes", Inputs(), Rule())
SCENARIOS: Final = worlds.by_name(
    STEADY,
    Scenario("hot-hall", "inputs: summer, and the hall is 6 K warmer", Inputs(air=6.0), Rule()),
    Scenario(
        "brittle-tools",
        "rule: a cheaper tool breaks at three quarters of the strain",
        Inputs(),
        Rule(strain=(8250.0, 9000.0, 9750.0)),
    ),
    Scenario(
        "new-alloy",
        "both: a harder alloy in a hotter hall, cut with stronger drives and tougher tools: "
        "too little power now jams what too much used to break",
        Inputs(air=10.0, torque=10.0),
        Rule(power_low=6400.0, power_high=12000.0, strain=(16000.0, 17000.0, 18000.0)),
    ),
)


def played(readings: Readings, scenario: Scenario) -> Readings:
    """Return the rows as the scenario has them, with their ``machine_failure`` (0 or 1)."""
    moved = _moved(readings, scenario.inputs)
    failed = readings["tool_failed"] | readings["random_failed"]
    for mode in failures(moved, scenario.rule).values():
        failed = failed | mode
    return moved | {"machine_failure": failed.astype(np.int64)}


def failures(readings: Readings, rule: Rule) -> dict[str, NDArray[np.bool_]]:
    """Tell by mode which pieces fail for a reason that the measurements show."""
    gap = readings["process_temperature"] - readings["air_temperature"]
    power = power_of(readings)
    kinds: list[NDArray[Any]] = [readings["type"] == kind for kind in ("L", "M", "H")]
    return {
        # The gap is compared as it is in binary, as it was for the published labels.
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
