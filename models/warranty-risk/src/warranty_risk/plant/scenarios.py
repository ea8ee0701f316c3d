"""The scenarios: changes of the vehicles, of the rule from features to claims, or of both."""

from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.demo import plants

# The mean and the spread of each feature of a usual vehicle; the rule weighs features in spreads.
USUAL: Final = {
    "total_error_count": (2.5, 2.0),
    "avg_cycle_time": (50.0, 0.45),  # s
    "cycle_time_variance": (3.0, 0.9),  # s2
    "rework_ratio": (0.05, 0.05),
    "vendor_defect_ratio": (0.075, 0.035),
    "avg_torque": (98.0, 1.15),  # Nm
    "torque_deviation": (4.0, 0.8),  # Nm
}
FEATURES: Final = tuple(USUAL)


class Inputs(msgspec.Struct, frozen=True):
    """How the lines run.

    ``cycle`` (s) and ``torque`` (Nm) are added to the cycle time and to the specified torque.
    ``torque_spread``, ``unevenness`` and ``defects`` are factors on the spread of the torque, the
    spread of the cycle time and the defects of the vendors.
    """

    cycle: float = 0.0
    torque: float = 0.0
    torque_spread: float = 1.0
    unevenness: float = 1.0
    defects: float = 1.0


class Rule(msgspec.Struct, frozen=True):
    """The log-odds of a claim: ``base`` at the usual values, and a weight per spread."""

    base: float = -3.75
    errors: float = 0.55
    unevenness: float = 0.2
    rework: float = 0.4
    defects: float = 0.65
    deviation: float = 0.95

    def risk(self, features: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Return the log-odds, of shape (rows,)."""
        weights = {
            "total_error_count": self.errors,
            "cycle_time_variance": self.unevenness,
            "rework_ratio": self.rework,
            "vendor_defect_ratio": self.defects,
            "torque_deviation": self.deviation,
        }
        total = np.full(len(features["torque_deviation"]), self.base)
        for name, weight in weights.items():
            middle, spread = USUAL[name]
            total = total + weight * (features[name] - middle) / spread
        return total


Scenario = plants.Scenario[Inputs, Rule]
STEADY: Final = Scenario(plants.STEADY, "nothing changes", Inputs(), Rule())
SCENARIOS: Final = plants.by_name(
    STEADY,
    Scenario(
        "worn-wrenches",
        "inputs: worn wrenches hold the torque less exactly",
        Inputs(torque_spread=1.4),
        Rule(),
    ),
    Scenario(
        "longer-warranty",
        "rule: a longer warranty doubles the claims",
        Inputs(),
        Rule(base=-2.5),
    ),
    Scenario(
        "new-platform",
        "both: a new platform takes longer and has more torque; its claims come from vendors' "
        "parts instead of deviations of the torque",
        Inputs(cycle=6.0, torque=12.0, defects=1.3),
        Rule(base=-3.65, errors=-0.5, unevenness=0.0, rework=-0.3, defects=1.8, deviation=-1.0),
    ),
)
