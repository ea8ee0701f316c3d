"""The senders of a model's requests, and the plant that they ask about, as one thing.

A sender for each kit of clients sends half the requests, half of them by HTTP, half by gRPC.
"""

import asyncio
import sys
from pathlib import Path

import msgspec

from watchkeeper.contracts.folders import make_private
from watchkeeper.contracts.spool import replace_file
from watchkeeper.demo import system
from watchkeeper.demo.clients import KITS, Target
from watchkeeper.demo.feeder import Feeder
from watchkeeper.demo.sender import DRAIN_SECONDS, Counts, Plan, Progress
from watchkeeper.demo.worlds import STEADY, Live, World, scenario_of, source_url


class Traffic:
    """The senders of one run and the plant that they ask about, with their files in ``folder``."""

    def __init__(self, folder: Path, world: World, scenario: str = STEADY) -> None:
        self.folder = folder
        self._world = world
        self._processes: list[asyncio.subprocess.Process] = []
        self._live: Live | None = None
        self._feeding: asyncio.Task[None] | None = None
        make_private(folder)
        for kit in KITS:
            self._progress_file(kit).unlink(missing_ok=True)
        self.switch(scenario)

    def switch(self, scenario: str) -> None:
        """Let things go by another scenario from the next seconds on.

        Raises:
            WorldError: there is no such scenario.
        """
        switch(self.folder, self._world, scenario)

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
        """Start the senders; their output goes to ``<kit>.log``.

        ``token`` is the credential for labels, ``key`` that for requests where the gateway asks for
        one; ``source`` is the URL of the operational database, by default the settings' one.
        """
        model = self._world.model
        self._live = await asyncio.to_thread(
            self._world.live,
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
            self._world.columns,
            key,
        )
        for number, kit in enumerate(KITS):
            plan = Plan(
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
                    start_new_session=True,  # Ctrl-C reaches them by way of this process
                )
            self._processes.append(process)
            _pipe(process).write(msgspec.json.encode(plan) + b"\n")
        feeder = Feeder(
            self._world, self._live, scenario_file(self.folder), list(map(_pipe, self._processes))
        )
        self._feeding = asyncio.create_task(feeder.run(rate))

    def progress(self) -> Progress:
        """Add up how the senders stand; before their first word, nothing is sent."""
        found = [
            msgspec.json.decode(path.read_bytes(), type=Progress)
            for path in map(self._progress_file, KITS)
            if path.exists()
        ]
        return _sum(found, finished=len(found) == len(KITS) and all(p.finished for p in found))

    def check(self) -> None:
        """Make sure that all senders run, and the plant.

        Raises:
            UnavailableError: a sender has ended by itself.
            WorldError, sqlalchemy.exc.SQLAlchemyError: the plant has.
        """
        if self._feeding is not None and self._feeding.done():
            self._feeding.result()
        for kit, process in zip(KITS, self._processes, strict=False):
            if process.returncode is not None:
                raise system.UnavailableError(
                    f"the {kit} sender ended with exit code {process.returncode}: {self.log(kit)}"
                )

    async def stop(self) -> None:
        """End the senders: they wait for their last answers and tell the last labels.

        Raises:
            UnavailableError: one had to be killed.
        """
        running = [process for process in self._processes if process.returncode is None]
        for process in running:
            process.terminate()
        try:
            async with asyncio.timeout(DRAIN_SECONDS + 10):
                for process in running:
                    await process.wait()
        except TimeoutError as error:
            raise system.UnavailableError(f"a sender did not end: {self.folder}") from error
        finally:
            for process in running:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            await self._stop_plant()

    async def _stop_plant(self) -> None:
        if self._feeding is not None:
            self._feeding.cancel()
            await asyncio.gather(self._feeding, return_exceptions=True)  # `check` has told it
            self._feeding = None
        if self._live is not None:
            await asyncio.to_thread(self._live.close)
            self._live = None

    def log(self, name: str) -> Path:
        """Where the output of a sender, by its kit, or of the plant goes."""
        return self.folder / f"{name}.log"

    def answers_file(self, kit: str) -> Path:
        """Where a sender keeps its answers, one a line."""
        return self.folder / f"answers-{kit}.jsonl"

    def failures_file(self, kit: str) -> Path:
        """Where a sender keeps its failures, one a line."""
        return self.folder / f"failures-{kit}.jsonl"

    def _progress_file(self, kit: str) -> Path:
        return self.folder / f"progress-{kit}.json"


def scenario_file(folder: Path) -> Path:
    """Where the plant reads by which scenario it works."""
    return folder / "scenario"


def switch(folder: Path, world: World, scenario: str) -> None:
    """Switch the plant whose files are in ``folder``.

    Raises:
        WorldError: there is no such scenario.
    """
    replace_file(scenario_file(folder), scenario_of(world, scenario).name.encode())


def _pipe(process: asyncio.subprocess.Process) -> asyncio.StreamWriter:
    assert process.stdin is not None  # noqa: S101 - it was asked for
    return process.stdin


def _sum(parts: list[Progress], *, finished: bool) -> Progress:
    total = Progress(
        requests={"http": Counts(), "grpc": Counts()},
        versions={},
        finished=finished,
    )
    for part in parts:
        for protocol, counts in part.requests.items():
            known = total.requests[protocol]
            total.requests[protocol] = Counts(
                sent=known.sent + counts.sent,
                answered=known.answered + counts.answered,
                failed=known.failed + counts.failed,
            )
        for version, number in part.versions.items():
            total.versions[version] = total.versions.get(version, 0) + number
        total.labels += part.labels
        total.labels_never_sent += part.labels_never_sent
        total.labels_lost += part.labels_lost
        total.skipped += part.skipped
        total.errors += part.errors
    return total
