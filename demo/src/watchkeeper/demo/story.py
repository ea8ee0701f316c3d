"""The story that ``make demo`` plays: the whole loop once, from an empty folder to the summary."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from watchkeeper.contracts.folders import make_private
from watchkeeper.contracts.spool import replace_file
from watchkeeper.demo import system
from watchkeeper.demo.accounts import add_up
from watchkeeper.demo.chaos import Chaos
from watchkeeper.demo.chronicle import POLL_SECONDS, SLOW_VERSION, Chronicle, WrongTurnError
from watchkeeper.demo.display import Display
from watchkeeper.demo.senders import Traffic
from watchkeeper.demo.summary import Summary, problems
from watchkeeper.demo.worlds import World, WorldError
from watchkeeper.ledger import Ledger

LABEL_DELAY: Final = 2.0
QUIET_WINDOWS: Final = 3  # examined without an alarm before anything changes
# Everything that takes minutes or days elsewhere, in seconds.
DRIFT_POLICY: Final = {
    "window": 400,
    "every": 100,
    "confirm": 2,
    "minimum_labels": 600,
    "minimum_positives": 60,
    "label_timeout": 60.0,
    "cool_down": 10.0,
}
STEPS: Final = (10, 25, 50)
ROLLOUT_POLICY: Final = {
    "steps": STEPS,
    "step_seconds": 4.0,
    "minimum_requests": 20,
    "latency_floor": 0.005,
    "patience": 60.0,
    "watch_seconds": 5.0,
}
# A machine that trains, serves and asks at once makes requests wait; none shall be turned away.
QUEUE_SECONDS: Final = "2"
WAIT_FOR_LEDGER: Final = 30.0
ERRORS: Final = 5  # of those that clients saw, each said once
FAILURES: Final = (WrongTurnError, WorldError, system.UnavailableError, SQLAlchemyError, OSError)


class StageError(RuntimeError):
    """A stage of the story failed; names it, and the log to read."""

    def __init__(self, stage: str, why: str, log: Path) -> None:
        super().__init__(f"{stage}: {why}\n  log: {log}")


class Story:
    """One telling. ``folder`` gets the system's home, the senders' files and the summary."""

    def __init__(
        self,
        folder: Path,
        display: Display,
        world: World,
        *,
        data: Path | None = None,
        chaos: bool = False,
    ) -> None:
        self._world = world
        self._folder = folder.resolve()
        self._home = self._folder / "system"
        self._unfinished = self._folder / "unfinished"
        self._summary_file = self._folder / "summary.json"
        self._display = display
        self._data = data.resolve() if data else None
        self._environment = {
            "WATCHKEEPER_HOME": str(self._home),
            "WATCHKEEPER_MODELS": msgspec.json.encode([world.model]).decode(),
            "WATCHKEEPER_DRIFT_POLICY": msgspec.json.encode(DRIFT_POLICY).decode(),
            "WATCHKEEPER_ROLLOUT_POLICY": msgspec.json.encode(ROLLOUT_POLICY).decode(),
            "WATCHKEEPER_TURN_SECONDS": "0.5",
            "WATCHKEEPER_QUEUE_SECONDS": QUEUE_SECONDS,
        }
        self._chaos = Chaos(self._status, display, enabled=chaos)
        self._source = f"sqlite:///{self._home / 'operational.db'}"
        self._traffic = Traffic(self._folder / "traffic", world)
        self._waiting_for = ""
        self._following: list[asyncio.Task[None]] = []

    async def play(self) -> tuple[Summary, list[str]]:
        """Play all of it; return the summary and what keeps the loop from being closed.

        Raises:
            StageError: a stage failed. Whatever happened, nothing is left running.
            UnavailableError: the system could not be stopped.
        """
        try:
            endpoints = await self._begin()
            ledger = Ledger(endpoints.ledger)
            chronicle = Chronicle(ledger, self._world.model, self._display)
            self._following = [
                asyncio.create_task(task) for task in (chronicle.follow(), self._show_traffic())
            ]
            try:
                await self._first_version(chronicle)
                await self._quiet(chronicle, endpoints)
                await self._drift(chronicle)
                await self._second_version(chronicle)
                await self._slow_version(chronicle)
                return await self._end(chronicle)
            finally:
                for task in self._following:
                    task.cancel()
                await asyncio.gather(*self._following, return_exceptions=True)
                ledger.close()
        finally:
            await self._stop_all()

    async def _begin(self) -> system.Endpoints:
        async with self._stage("the plant's past, and the system comes up", "mlflow", 150):
            await self._clear()
            past = await asyncio.to_thread(self._world.seed, self._source, self._data)
            self._display.tell(f"{past} in the operational database")
            found = await self._command("up", seconds=120.0)
            endpoints = msgspec.convert(found, system.Endpoints)
            self._display.tell("up", f"V2 {endpoints.v2}, MLflow {endpoints.mlflow}")
            return endpoints

    async def _first_version(self, chronicle: Chronicle) -> None:
        async with self._stage("version 1: train, register, gate, serve", "run.", 120):
            await self._until(
                chronicle, "version 1 in production", lambda: chronicle.versions("promoted") == [1]
            )

    async def _quiet(self, chronicle: Chronicle, endpoints: system.Endpoints) -> None:
        async with self._stage("clients ask, labels come late, nothing changes", "sidecar", 90):
            await self._traffic.start(
                endpoints,
                system.feedback_token(self._home),
                source=self._source,
                label_delay=LABEL_DELAY,
                data=self._data,
                keep_answers=True,
            )
            await self._until(
                chronicle,
                f"{QUIET_WINDOWS} windows without drift",
                lambda: chronicle.quiet_windows(1) >= QUIET_WINDOWS,
            )
            await self._chaos.kill("mlflow")
            if chronicle.episodes():
                raise WrongTurnError("an episode was opened although nothing had changed")

    async def _drift(self, chronicle: Chronicle) -> None:
        scenario = self._world.scenarios[self._world.drift]
        async with self._stage("the plant changes", "sidecar", 60 + self._chaos.patience):
            self._traffic.switch(scenario.name)
            self._display.tell(scenario.name, scenario.story)
            await self._until(chronicle, "episode of drift", lambda: bool(chronicle.episodes()))
            await self._chaos.kill("sidecar")
            await self._until(chronicle, "training run for the episode", chronicle.trains)

    async def _second_version(self, chronicle: Chronicle) -> None:
        async with self._stage("version 2: train on what is new", "run.", 90):
            await self._until(
                chronicle,
                "version 2 past its gate",
                lambda: 2 in chronicle.versions("gate-passed"),
            )
        seconds = 90 + self._chaos.patience
        async with self._stage("version 2 takes the traffic", "rollout", seconds):
            await self._chaos.during_rollout(self._world.model, stable=1, canary=2)
            await self._until(
                chronicle,
                "version 2 in production",
                lambda: chronicle.versions("promoted") == [1, 2],
            )

    async def _slow_version(self, chronicle: Chronicle) -> None:
        async with self._stage("version 3: accurate, but slow", "run.", 90):
            slow = self._world.slow
            parameters = [word for text in slow for word in ("--set", text)]
            run = await self._command("train", self._world.model, *parameters)
            self._display.tell(f"training run {run['run']} started by hand", ", ".join(slow))
            await self._until(
                chronicle,
                "version 3 past its gate",
                lambda: SLOW_VERSION in chronicle.versions("gate-passed"),
            )
        async with self._stage("version 3 is tried and taken off", "rollout", 75):
            await self._until(
                chronicle,
                "version 3 rolled back",
                lambda: chronicle.versions("rolled-back") == [SLOW_VERSION],
            )

    async def _end(self, chronicle: Chronicle) -> tuple[Summary, list[str]]:
        async with self._stage("the last answers, checked one by one", "sidecar", 180):
            await self._traffic.stop()
            progress = self._traffic.progress()
            answered = sum(counts.answered for counts in progress.requests.values())
            with contextlib.suppress(TimeoutError):  # then the summary tells what is missing
                async with asyncio.timeout(WAIT_FOR_LEDGER):
                    while not chronicle.has_all(answered, progress.labels):  # noqa: ASYNC110
                        await asyncio.sleep(POLL_SECONDS)
            summary, extra = await add_up(
                chronicle,
                self._traffic,
                await self._status(),
                steps=STEPS,
                seconds=self._display.seconds,
                killed=self._chaos.killed,
            )
            text = msgspec.json.format(msgspec.json.encode(summary)) + b"\n"
            await asyncio.to_thread(replace_file, self._summary_file, text)
            told = list(dict.fromkeys(progress.errors))[:ERRORS]
            return summary, problems(summary, extra, chaos=self._chaos.enabled) + told

    async def _clear(self) -> None:
        """Begin from nothing: an earlier telling that was cut off may have left a system."""
        if self._unfinished.exists():
            await self._command("down")
        await asyncio.to_thread(shutil.rmtree, self._home, ignore_errors=True)
        self._summary_file.unlink(missing_ok=True)
        make_private(self._home)
        self._unfinished.touch()

    async def _stop_all(self) -> None:
        try:
            await self._traffic.stop()
        finally:
            if self._unfinished.exists():
                await self._command("down", seconds=90.0)
                self._unfinished.unlink()

    async def _show_traffic(self) -> None:
        while True:
            self._display.progress(self._traffic.progress())
            await asyncio.sleep(2 * POLL_SECONDS)

    @contextlib.asynccontextmanager
    async def _stage(self, name: str, log: str, seconds: float) -> AsyncIterator[None]:
        """Play one stage; ``log`` begins the names of the processes whose log tells more."""
        self._display.stage(name)
        self._waiting_for = "end of it"
        deadline = asyncio.timeout(seconds)
        try:
            async with deadline:
                yield
        except TimeoutError as error:
            why = f"no {self._waiting_for} within {seconds:.0f} s"
            if not deadline.expired():
                why = f"{error!r} while waiting for {self._waiting_for}"
            raise StageError(name, why, self._newest_log(log)) from error
        except FAILURES as error:
            raise StageError(name, str(error), self._newest_log(log)) from error

    def _newest_log(self, beginning: str) -> Path:
        folder = self._home / "logs"
        logs = sorted(folder.glob(f"{beginning}*.log"), key=lambda log: log.stat().st_mtime)
        return logs[-1] if logs else folder

    async def _until(self, chronicle: Chronicle, what: str, condition: Callable[[], bool]) -> None:
        self._waiting_for = what
        while not condition():
            self._traffic.check()
            chronicle.check()
            for task in self._following:
                if task.done():
                    task.result()  # it ends by an error only
            await asyncio.sleep(POLL_SECONDS)

    async def _command(self, *arguments: str, seconds: float = system.COMMAND_SECONDS) -> Any:
        return await system.command(*arguments, environment=self._environment, seconds=seconds)

    async def _status(self) -> Any:
        return await self._command("status")
