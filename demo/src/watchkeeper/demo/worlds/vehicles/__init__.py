"""Vehicles that are built, in a plant whose tables grow, and that come back or do not."""

import threading
import time
from collections import deque
from pathlib import Path
from typing import Final

from watchkeeper.demo.worlds import Case, Live, WorldError, open_database
from watchkeeper.demo.worlds.vehicles import plant
from watchkeeper.demo.worlds.vehicles.aggregate import Refresher
from watchkeeper.demo.worlds.vehicles.assembly import Assembly
from watchkeeper.demo.worlds.vehicles.scenarios import FEATURES, SCENARIOS, Scenario

MODEL: Final = "warranty-risk"


class Vehicles:
    """The model's world, see :class:`watchkeeper.demo.worlds.World`."""

    model = MODEL
    takes_table = False
    columns = tuple((name, "INT64" if name == "total_error_count" else "FP64") for name in FEATURES)
    scenarios = SCENARIOS
    drift = "new-platform"
    slow = ("onnx=off", "trees=200")

    def check(self, data: Path) -> None:
        """There is no table of vehicles to begin with."""
        raise WorldError(f"{data}: {self.model} has no published table; its vehicles are made")

    def seed(self, url: str, data: Path | None = None) -> str:
        """Store the vehicles of the past."""
        if data:
            self.check(data)
        return f"{plant.seed(url)} vehicles"

    def live(
        self, url: str, *, seed: int, data: Path | None, label_delay: float, log: Path
    ) -> Live:
        """Let the lines run on."""
        if data:
            self.check(data)
        return Plant(url, Assembly(seed), label_delay, log)


class Plant:
    """Lines at work. What they build goes into the plant's tables, and nowhere else.

    A case is a vehicle as the model's own refresh has aggregated it, read back from the table;
    its claim is noted in the table when it becomes known.
    """

    def __init__(self, url: str, assembly: Assembly, label_delay: float, log: Path) -> None:
        self._assembly = assembly
        self._delay = label_delay
        self._engine = open_database(url)
        self._refresher = Refresher(MODEL, url, log)
        self._building: dict[int, int] = {}  # id → claim
        self._sold: deque[tuple[float, int, int]] = deque()  # known from, id, claim
        self._one_at_a_time = threading.Lock()

    def cases(self, count: int, scenario: str) -> list[Case]:
        """Complete the vehicles on the line, begin the next ``count``, and return the former."""
        with self._one_at_a_time:
            if not self._building:
                self._begin(count, SCENARIOS[scenario])
            done = self._complete()
            self._begin(count, SCENARIOS[scenario])
            return done

    def close(self) -> None:
        """Stop the lines; what is on them stays unfinished."""
        self._refresher.kill()
        with self._one_at_a_time:
            self._refresher.close()
            self._engine.dispose()

    def _begin(self, count: int, scenario: Scenario) -> None:
        built = self._assembly.build(count, scenario)
        now = time.time()
        with self._engine.begin() as connection:
            ids = plant.store(connection, built, [now] * count)
            self._building = dict(zip(ids, built.claims.tolist(), strict=True))
            known = []
            while self._sold and self._sold[0][0] <= now:
                known.append(self._sold.popleft()[1:])
            plant.settle(connection, known)

    def _complete(self) -> list[Case]:
        now = time.time()
        with self._engine.begin() as connection:
            plant.finish(connection, ((number, now) for number in self._building))
        self._refresher.refresh()
        with self._engine.connect() as connection:
            rows = plant.read_features(
                connection, FEATURES, min(self._building), max(self._building)
            )
        cases = [
            Case(row, f"vehicle-{number}", self._building[number]) for number, row in rows.items()
        ]
        self._sold.extend((now + self._delay, n, claim) for n, claim in self._building.items())
        return cases


WORLD: Final = Vehicles()
