"""What happens in the plant, passed on to those who ask about it: a world's cases, by the clock."""

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from watchkeeper.demo.worlds import Case, Live, World, scenario_of

PORTION: Final = 0.5  # seconds' worth of cases made at a time
AHEAD: Final = 1.5  # seconds by which cases are there before they are needed
BACKLOG: Final = 1 << 20  # bytes; a sender that reads no more gets no more


class Feeder:
    """Feeds pipes in turn. The scenario is read from its file again and again."""

    def __init__(
        self, world: World, live: Live, scenario_file: Path, pipes: Sequence[asyncio.StreamWriter]
    ) -> None:
        self._world = world
        self._live = live
        self._scenario_file = scenario_file
        self._pipes = pipes

    async def run(self, rate: float) -> None:
        """Make ``rate`` cases a second, for as long as it is let.

        Raises:
            WorldError: the file names a scenario that there is none of.
            sqlalchemy.exc.SQLAlchemyError: the world's database failed.
        """
        loop = asyncio.get_running_loop()
        start, made = loop.time(), 0
        while True:
            wanted = round((loop.time() - start + AHEAD) * rate)
            if wanted - made > 2 * AHEAD * rate:  # this process was asleep: do not make up for it
                made = wanted - round(AHEAD * rate)
            if wanted > made:
                name = (await asyncio.to_thread(self._scenario_file.read_text)).strip()
                scenario = scenario_of(self._world, name)
                cases = await asyncio.to_thread(self._live.cases, wanted - made, scenario.name)
                made += len(cases)
                self._hand_out(cases)
            await asyncio.sleep(PORTION)

    def _hand_out(self, cases: list[Case]) -> None:
        for number, pipe in enumerate(self._pipes):
            if pipe.is_closing() or pipe.transport.get_write_buffer_size() > BACKLOG:
                continue  # ended, or stuck: whoever watches it will tell
            with contextlib.suppress(ConnectionError):
                pipe.write(msgspec.json.encode(cases[number :: len(self._pipes)]) + b"\n")
