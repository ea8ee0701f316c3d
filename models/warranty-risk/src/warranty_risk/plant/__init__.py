"""The plant: assembly lines that build vehicles, some of which come back with a claim."""

import threading
import time
from collections import deque
from pathlib import Path
from typing import Final

from warranty_risk.plant import tables
from warranty_risk.plant.aggregate import Refresher
from warranty_risk.plant.assembly import Assembly
from warranty_risk.plant.scenarios import FEATURES, SCENARIOS, Scenario
from watchkeeper.demo.plants import Case, PlantError, RunningPlant, open_database

MODEL: Final = "warranty-risk"


class AssemblyPlant:
    """The plant, see :class:`watchkeeper.demo.plants.Plant`."""

    model = MODEL
    takes_table = False
    columns = tuple((name, "INT64" if name == "total_error_count" else "FP64") for name in FEATURES)
    scenarios = SCENARIOS
    drift = "new-platform"
    slow = ("onnx=off", "trees=200")

    def check(self, data: Path) -> None:
        """Refuse every table: there is no published data set of such vehicles."""
        raise PlantError(f"{data}: {self.model} uses no table; its history is simulated")

    def seed(self, url: str, data: Path | None = None) -> str:
        """Store the history of vehicles."""
        if data:
            self.check(data)
        return f"{tables.seed(url)} vehicles"

    def start(
        self, url: str, *, seed: int, data: Path | None, label_delay: float, log: Path
    ) -> RunningPlant:
        """Start the lines."""
        if data:
            self.check(data)
        return Lines(url, Assembly(seed), label_delay, log)


class Lines:
    """Running lines, see :class:`watchkeeper.demo.plants.RunningPlant`.

    They write vehicles into the plant's tables. A case is a vehicle's row of vehicle_features,
    which the model's own refresh has added. Its claim is written into the table ``label_delay``
    seconds later.
    """

    def __init__(self, url: str, assembly: Assembly, label_delay: float, log: Path) -> None:
        self._assembly = assembly
        self._delay = label_delay
        self._engine = open_database(url)
        self._refresher = Refresher(MODEL, url, log)
        self._building: dict[int, int] = {}  # id → claim
        self._sold: deque[tuple[float, int, int]] = deque()  # when the claim is known, id, claim
        self._lock = threading.Lock()

    def cases(self, count: int, scenario: str) -> list[Case]:
        """Complete the vehicles on the lines, begin the next ``count``, and return the former."""
        with self._lock:
            if not self._building:
                self._begin(count, SCENARIOS[scenario])
            done = self._complete()
            self._begin(count, SCENARIOS[scenario])
            return done

    def close(self) -> None:
        """Stop the lines; the vehicles on them stay incomplete."""
        self._refresher.kill()
        with self._lock:
            self._refresher.close()
            self._engine.dispose()

    def _begin(self, count: int, scenario: Scenario) -> None:
        built = self._assembly.build(count, scenario)
        now = time.time()
        with self._engine.begin() as connection:
            ids = tables.store(connection, built, [now] * count)
            self._building = dict(zip(ids, built.claims.tolist(), strict=True))
            known = []
            while self._sold and self._sold[0][0] <= now:
                known.append(self._sold.popleft()[1:])
            tables.store_claims(connection, known)

    def _complete(self) -> list[Case]:
        now = time.time()
        with self._engine.begin() as connection:
            tables.store_completed(connection, ((number, now) for number in self._building))
        self._refresher.refresh()
        with self._engine.connect() as connection:
            rows = tables.read_features(
                connection, FEATURES, min(self._building), max(self._building)
            )
        cases = [
            Case(row, f"vehicle-{number}", self._building[number]) for number, row in rows.items()
        ]
        self._sold.extend((now + self._delay, n, claim) for n, claim in self._building.items())
        return cases


PLANT: Final = AssemblyPlant()
