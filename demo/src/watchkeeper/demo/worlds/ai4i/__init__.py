"""Milling machines, made by the published rules of AI4I 2020 or taken from the table itself."""

from pathlib import Path
from typing import Final, Protocol

from watchkeeper.demo.worlds import Case, Live
from watchkeeper.demo.worlds.ai4i import readings
from watchkeeper.demo.worlds.ai4i.machines import MEASUREMENTS, Fleet, Readings
from watchkeeper.demo.worlds.ai4i.scenarios import SCENARIOS, played
from watchkeeper.demo.worlds.ai4i.table import TableRows, read_table


class Source(Protocol):
    """Where readings come from."""

    def readings(self, rows: int) -> Readings:
        """Return the next rows."""


class Machines:
    """The model's world, see :class:`watchkeeper.demo.worlds.World`."""

    model = "ai4i-failure"
    takes_table = True
    columns = tuple((name, "BYTES" if name == "type" else "FP64") for name in MEASUREMENTS)
    scenarios = SCENARIOS
    drift = "new-alloy"
    slow = ("onnx=off", "trees=200")

    def check(self, data: Path) -> None:
        """Read the table, for the sake of its errors."""
        read_table(data)

    def seed(self, url: str, data: Path | None = None) -> str:
        """Store the readings of the past."""
        history = read_table(data) if data else readings.generated_history()
        return f"{readings.seed(url, history)} readings"

    def live(
        self,
        url: str,  # noqa: ARG002 - nothing that the machines do from now on is stored there
        *,
        seed: int,
        data: Path | None,
        label_delay: float,  # noqa: ARG002
        log: Path,  # noqa: ARG002
    ) -> Live:
        """Let the machines run on."""
        return Milling(TableRows(read_table(data), seed) if data else Fleet(seed))


class Milling:
    """Machines at work."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def cases(self, count: int, scenario: str) -> list[Case]:
        """Return the next readings; the outcome is whether the machine failed."""
        rows = played(self._source.readings(count), SCENARIOS[scenario])
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
        """Nothing is held open."""


WORLD: Final = Machines()
