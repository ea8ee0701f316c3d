"""The plant: a fleet of pumps around the globe, whose bearings wear until they are maintained."""

import threading
from pathlib import Path
from typing import Final

from sensor_fleet.plant import tables
from sensor_fleet.plant.scenarios import SCENARIOS
from sensor_fleet.plant.sensors import DECIMALS
from sensor_fleet.plant.store import Store
from watchkeeper.demo.plants import Case, PlantError, RunningPlant

SEED: Final = 1883
MACHINES: Final = 120
TURNS: Final = 100  # of the history


class FleetPlant:
    """The plant, see :class:`watchkeeper.demo.plants.Plant`."""

    model = "sensor-fleet"
    takes_table = False
    columns = tuple((name, "BYTES" if name == "machine_type" else "FP64") for name in DECIMALS)
    scenarios = SCENARIOS
    drift = "overload"
    slow = ("estimator=forest", "onnx=off", "trees=200")

    def check(self, data: Path) -> None:
        """Refuse every table: the machines continue from a simulated state, which no table has."""
        raise PlantError(f"{data}: {self.model} uses no table; its history is simulated")

    def seed(self, url: str, data: Path | None = None) -> str:
        """Store the history of readings."""
        if data:
            self.check(data)
        with Store(url) as store:
            return f"{store.seed(SEED, machines=MACHINES, turns=TURNS)} labelled readings"

    def start(
        self,
        url: str,
        *,
        seed: int,
        data: Path | None,
        label_delay: float,  # noqa: ARG002 - labels are written when they become known
        log: Path,  # noqa: ARG002 - there is no process
    ) -> RunningPlant:
        """Start the machines."""
        if data:
            self.check(data)
        return RunningFleet(Store(url), seed)


class RunningFleet:
    """The running fleet, see :class:`watchkeeper.demo.plants.RunningPlant`.

    A case is a reading whose label is known. So the simulation is one horizon ahead of the cases,
    and cases of a new scenario come after those that were simulated before it.
    """

    def __init__(self, store: Store, seed: int) -> None:
        self._store = store
        self._seed = seed
        self._last = store.labelled()
        self._lock = threading.Lock()

    def cases(self, count: int, scenario: str) -> list[Case]:
        """Return the next readings; the outcome is 1 where the machine fails within the horizon."""
        with self._lock:
            while self._store.labelled() - self._last < count:
                self._store.advance(self._seed, SCENARIOS[scenario])
            rows = self._store.read(self._last, count)
            self._last += count
        return [
            Case({name: row[name] for name in DECIMALS}, row["machine"], row[tables.LABEL])
            for row in rows
        ]

    def close(self) -> None:
        """Stop; the fleet stays in its database."""
        with self._lock:
            self._store.close()


PLANT: Final = FleetPlant()
