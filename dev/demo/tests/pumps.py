"""A plant of the tests: pumps whose inlet pressure is around 300 kPa, or 306 kPa in summer."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from watchkeeper.demo.plants import STEADY, Case, PlantError, Scenario, by_name

STEADY_SCENARIO: Final = Scenario(STEADY, "nothing changes", 0.0, 50.0)
SUMMER: Final = Scenario("summer", "inputs: the inlet pressure is 6 kPa higher", 6.0, 50.0)


class Pumps:
    """The plant of the model ``pump-failure``, see :class:`watchkeeper.demo.plants.Plant`."""

    model = "pump-failure"
    takes_table = False
    columns = (("grade", "BYTES"), ("inlet_pressure", "FP64"), ("flow", "FP64"))
    scenarios: Mapping[str, Scenario[Any, Any]] = by_name(STEADY_SCENARIO, SUMMER)
    drift = "summer"
    slow = ("trees=200",)

    def check(self, data: Path) -> None:
        raise PlantError(f"{data}: pumps have no table")

    def seed(self, url: str, data: Path | None = None) -> str:  # noqa: ARG002
        return "0 pumps"

    def start(
        self,
        url: str,  # noqa: ARG002
        *,
        seed: int,
        data: Path | None,  # noqa: ARG002
        label_delay: float,  # noqa: ARG002
        log: Path,  # noqa: ARG002
    ) -> "RunningPumps":
        return RunningPumps(seed)


class RunningPumps:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def cases(self, count: int, scenario: str) -> list[Case]:
        return [self._case(Pumps.scenarios[scenario]) for _ in range(count)]

    def close(self) -> None:
        pass

    def _case(self, scenario: Scenario[float, float]) -> Case:
        row = {
            "grade": self._random.choice("LMH"),
            "inlet_pressure": self._random.gauss(300.0 + scenario.inputs, 2.0),
            "flow": self._random.uniform(0.0, 100.0),
        }
        return Case(row, f"pump-{self._random.randrange(20)}", int(row["flow"] > scenario.rule))


PLANT: Final = Pumps()
