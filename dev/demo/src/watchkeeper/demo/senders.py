"""The traffic of one model: a sender process for each kit of clients, and the running plant.

Each sender sends half of the requests, half of them over HTTP and half over gRPC.
"""

import asyncio
import sys
from pathlib import Path
from typing import Final

import msgspec

from watchkeeper.core.folders import make_private
from watchkeeper.core.spool import replace_file
from watchkeeper.demo import system
from watchkeeper.demo.case_source import CaseSource
from watchkeeper.demo.clients import KITS, Target
from watchkeeper.demo.messages import SenderPlan, TrafficProgress, add_progress
from watchkeeper.demo.plants import STEADY, Plant, RunningPlant, find_scenario, source_url
from watchkeeper.demo.system import SystemUnavailableError
from watchkeeper.demo.watchdog import StalledError, Watchdog

STOP_IDLE_SECONDS: Final = 120.0  # longer than the last answers and a post of labels can take
STOP_LIMIT_SECONDS: Final = 900.0
POLL_SECONDS: Final = 0.1


class Traffic:
    """The senders of one model and the plant whose cases they send.

    All files are in ``folder``: a log and the progress of each sender, the name of the scenario,
    and on request all answers and failures.
    """

    def __init__(self, folder: Path, plant: Plant, scenario: str = STEADY) -> None:
        self.folder = folder
        self._plant = plant
        self._processes: list[asyncio.subprocess.Process] = []
        self._running: RunningPlant | None = None
        self._source: asyncio.Task[None] | None = None
        make_private(folder)
        for kit in KITS:
            self._progress_file(kit).unlink(missing_ok=True)
        self.switch(scenario)

    def switch(self, scenario: str) -> None:
        """Switch the plant to another scenario; the next cases follow it.

        Raises:
            PlantError: the plant has no such scenario.
        """
        switch(self.folder, self._plant, scenario)

    async def start(
        self,
        endpoints: system.Endpoints,
        token: str,
        *,
        key: str = "",
        source: str = "",
        rate: float = 100.0,
        label_delay: float = 20.0,
        seed: int = 7,
        data: Path | None = None,
        keep_answers: bool = False,
    ) -> None:
        """Start the plant and the senders.

        Args:
            endpoints: the addresses of the system.
            token: the token for labels.
            key: the API key for requests; empty if the gateway needs none.
            source: the URL of the operational database; empty for the one of the settings.
            rate: requests per second of all senders together.
            label_delay: seconds between an answer and its label.
            seed: the seed of all random numbers.
            data: a table from which the plant draws its rows.
            keep_answers: whether the senders write all answers and failures.
        """
        model = self._plant.model
        self._running = await asyncio.to_thread(
            self._plant.start,
            source or source_url(),
            seed=seed,
            data=data,
            label_delay=label_delay,
            log=self.log("plant"),
        )
        target = Target(
            endpoints.address,
            endpoints.hosts.get(model, model),
            model,
            self._plant.columns,
            key,
        )
        for number, kit in enumerate(KITS):
            plan = SenderPlan(
                kit=kit,
                target=target,
                token=token,
                progress_file=str(self._progress_file(kit)),
                answers_file=str(self.answers_file(kit)) if keep_answers else "",
                failures_file=str(self.failures_file(kit)) if keep_answers else "",
                rate=rate / len(KITS),
                label_delay=label_delay,
                seed=seed + number,
            )
            with self.log(kit).open("wb") as log:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "watchkeeper.demo.sender",
                    stdin=asyncio.subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C goes to this process, which stops the senders
                )
            self._processes.append(process)
            _stdin(process).write(msgspec.json.encode(plan) + b"\n")
        source_of_cases = CaseSource(
            self._plant,
            self._running,
            scenario_file(self.folder),
            list(map(_stdin, self._processes)),
        )
        self._source = asyncio.create_task(source_of_cases.run(rate))

    def progress(self) -> TrafficProgress:
        """Return the progress of all senders together."""
        parts = [
            msgspec.json.decode(path.read_bytes(), type=TrafficProgress)
            for path in map(self._progress_file, KITS)
            if path.exists()
        ]
        return add_progress(
            parts, finished=len(parts) == len(KITS) and all(part.finished for part in parts)
        )

    def check(self) -> None:
        """Check that the senders and the plant still run.

        Raises:
            SystemUnavailableError: a sender has ended by itself.
            PlantError, DatabaseError: the plant has failed.
        """
        if self._source is not None and self._source.done():
            self._source.result()
        for kit, process in zip(KITS, self._processes, strict=False):
            if process.returncode is not None:
                raise SystemUnavailableError(
                    f"the {kit} sender ended with exit code {process.returncode}: {self.log(kit)}"
                )

    async def stop(self) -> None:
        """Stop the senders. They wait for their last answers and send the last labels.

        Raises:
            SystemUnavailableError: a sender did not end and was killed.
        """
        running = [process for process in self._processes if process.returncode is None]
        for process in running:
            process.terminate()
        watchdog = Watchdog(idle_seconds=STOP_IDLE_SECONDS, limit_seconds=STOP_LIMIT_SECONDS)
        try:
            while any(process.returncode is None for process in running):
                watchdog.observe(self.progress())
                await asyncio.sleep(POLL_SECONDS)
        except StalledError as error:
            raise SystemUnavailableError(
                f"a sender does not end ({error}); its log is in {self.folder}"
            ) from error
        finally:
            for process in running:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            await self._stop_plant()

    async def _stop_plant(self) -> None:
        if self._source is not None:
            self._source.cancel()
            await asyncio.gather(self._source, return_exceptions=True)  # `check` reports its error
            self._source = None
        if self._running is not None:
            await asyncio.to_thread(self._running.close)
            self._running = None

    def log(self, name: str) -> Path:
        """Return the log of a sender, by its kit, or of the plant."""
        return self.folder / f"{name}.log"

    def answers_file(self, kit: str) -> Path:
        """Return the file of a sender's answers, one per line."""
        return self.folder / f"answers-{kit}.jsonl"

    def failures_file(self, kit: str) -> Path:
        """Return the file of a sender's failures, one per line."""
        return self.folder / f"failures-{kit}.jsonl"

    def _progress_file(self, kit: str) -> Path:
        return self.folder / f"progress-{kit}.json"


def scenario_file(folder: Path) -> Path:
    """Return the file with the name of the plant's scenario."""
    return folder / "scenario"


def switch(folder: Path, plant: Plant, scenario: str) -> None:
    """Switch the plant whose files are in ``folder`` to a scenario.

    Raises:
        PlantError: the plant has no such scenario.
    """
    replace_file(scenario_file(folder), find_scenario(plant, scenario).name.encode())


def _stdin(process: asyncio.subprocess.Process) -> asyncio.StreamWriter:
    assert process.stdin is not None  # noqa: S101 - opened as a pipe
    return process.stdin
