"""Distribute the cases of a plant to the senders, at a fixed rate."""

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from watchkeeper.demo.plants import Case, Plant, RunningPlant, find_scenario

INTERVAL: Final = 0.5  # seconds between two batches of cases
AHEAD: Final = 1.5  # seconds by which a case is there before its sender needs it
MAX_BACKLOG: Final = 1 << 20  # bytes in a pipe; a sender that does not read gets no more cases


class CaseSource:
    """Writes cases to the senders' pipes in turn.

    The name of the scenario is read from a file before each batch, so that another process can
    switch it.
    """

    def __init__(
        self,
        plant: Plant,
        running: RunningPlant,
        scenario_file: Path,
        pipes: Sequence[asyncio.StreamWriter],
    ) -> None:
        self._plant = plant
        self._running = running
        self._scenario_file = scenario_file
        self._pipes = pipes

    async def run(self, rate: float) -> None:
        """Make ``rate`` cases per second until the task is cancelled.

        Raises:
            PlantError: the file names a scenario that the plant does not have.
            DatabaseError: the plant's database failed.
        """
        loop = asyncio.get_running_loop()
        start, made = loop.time(), 0
        while True:
            due = round((loop.time() - start + AHEAD) * rate)
            if due - made > 2 * AHEAD * rate:  # this process was suspended: skip the missed cases
                made = due - round(AHEAD * rate)
            if due > made:
                name = (await asyncio.to_thread(self._scenario_file.read_text)).strip()
                scenario = find_scenario(self._plant, name)
                cases = await asyncio.to_thread(self._running.cases, due - made, scenario.name)
                made += len(cases)
                self._distribute(cases)
            await asyncio.sleep(INTERVAL)

    def _distribute(self, cases: list[Case]) -> None:
        for number, pipe in enumerate(self._pipes):
            # `Traffic.check` reports a sender that has ended.
            if pipe.is_closing() or pipe.transport.get_write_buffer_size() > MAX_BACKLOG:
                continue
            with contextlib.suppress(ConnectionError):
                pipe.write(msgspec.json.encode(cases[number :: len(self._pipes)]) + b"\n")
