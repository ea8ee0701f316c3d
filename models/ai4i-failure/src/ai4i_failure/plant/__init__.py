"""The plant: milling machines by the published rules of AI4I 2020, or rows of its table."""

from pathlib import Path
from typing import Final, Protocol

from ai4i_failure.plant import readings
from ai4i_failure.plant.machines import MEASUREMENTS, Fleet, Readings
from ai4i_failure.plant.scenarios import SCENARIOS, apply
from ai4i_failure.plant.table import TableRows, read_table
from watchkeeper.demo.plants import Case, RunningPlant


class Source(Protocol):
    """A source of readings: simulated machines, or a table."""

    def readings(self, rows: int) -> Readings:
        """Return the next rows."""


class MillingPlant:
    """The plant, see :class:`watchkeeper.demo.plants.Plant`."""

    model = "ai4i-failure"
    takes_table = True
    columns = tuple((name, "BYTES" if name == "type" else "FP64") for name in MEASUREMENTS)
    scenarios = SCENARIOS
    drift = "new-alloy"
    slow = ("onnx=off", "trees=200")

    def check(self, data: Path) -> None:
        """Read the table; its errors are those of this check."""
        read_table(data)

    def seed(self, url: str, data: Path | None = None) -> str:
        """Store the history of readings."""
        history = read_table(data) if data else readings.generated_history()
        return f"{readings.seed(url, history)} readings"

    def start(
        self,
        url: str,  # noqa: ARG002 - new readings are not stored
        *,
        seed: int,
        data: Path | None,
        label_delay: float,  # noqa: ARG002
        log: Path,  # noqa: ARG002
    ) -> RunningPlant:
        """Start the machines."""
        return Machines(TableRows(read_table(data), seed) if data else Fleet(seed))


class Machines:
    """Running machines, see :class:`watchkeeper.demo.plants.RunningPlant`."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def cases(self, count: int, scenario: str) -> list[Case]:
        """Return the next readings; the outcome is 1 where the machine failed."""
        rows = apply(self._source.readings(count), SCENARIOS[scenario])
        columns = [rows[name].tolist() for name in MEASUREMENTS]
        return [
            Case(dict(zip(MEASUREMENTS, values, strict=True)), machine, failed)
            for values, machine, failed in zip(
                zip(*columns, strict=True),
                rows["machine"].tolist(),
                rows["machine_failure"].tolist(),
                strict=True,
            )
        ]

    def close(self) -> None:
        """Do nothing: no connection is open."""


PLANT: Final = MillingPlant()
