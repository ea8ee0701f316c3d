"""The scenarios: changes of how the fleet runs, of the rule from wear to failure, or of both."""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.demo import plants

Numbers = NDArray[np.float64]


class Inputs(msgspec.Struct, frozen=True):
    """How the fleet runs.

    ``ambient`` (K) is added to the temperature of all halls, and ``load``, a share of the rated
    load, to the load of all regimes. ``shares`` are the shares of the regimes idle, normal and
    heavy, whose sum is 1. ``growth`` is a factor on the growth of wear.
    """

    ambient: float = 0.0
    load: float = 0.0
    shares: tuple[float, float, float] = (0.2, 0.6, 0.2)
    growth: float = 1.0


class Rule(msgspec.Struct, frozen=True):
    """The logarithm of the failures per hour: ``base``, and a weight for each cause.

    ``wear`` is for the wear of the bearing, from 0 after maintenance to about 1 at the end of its
    usual life. ``cavitation`` is for the lack of pressure, in standard deviations.
    """

    base: float = -11.4
    wear: float = 9.0
    cavitation: float = 0.0

    def hazard(self, wear: Numbers, lack: Numbers) -> Numbers:
        """Return the failures per hour of running machines, of shape (machines,)."""
        exponent = self.base + self.wear * wear + self.cavitation * lack
        return np.asarray(np.exp(np.minimum(exponent, 5.0)))


Scenario = plants.Scenario[Inputs, Rule]
STEADY: Final = Scenario(plants.STEADY, "nothing changes", Inputs(), Rule())
SCENARIOS: Final = plants.by_name(
    STEADY,
    Scenario(
        "heat-wave",
        "inputs: all halls of the world are 9 K warmer than usual in the season",
        Inputs(ambient=9.0),
        Rule(),
    ),
    Scenario(
        "thin-lubricant",
        "rule: with a thinner lubricant, bearings fail at two thirds of the wear",
        Inputs(),
        Rule(wear=13.5),
    ),
    Scenario(
        "overload",
        "both: all machines run above their rated load, with stronger bearings; they now fail "
        "where the pressure is too low rather than where the bearing is worn",
        Inputs(load=0.3, shares=(0.0, 0.5, 0.5), growth=0.45),
        Rule(base=-7.5, wear=0.0, cavitation=4.0),
    ),
)
