"""The demonstration: the whole loop once, from an empty folder to the summary.

Version 1 is trained and serves. The plant changes, drift is detected, and version 2 is trained and
takes the traffic in steps. Version 3 is accurate but slow, and is rolled back.
"""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from watchkeeper.core.events import GatePassed, Promoted, RolledBack
from watchkeeper.core.folders import make_private
from watchkeeper.core.spool import replace_file
from watchkeeper.demo import system
from watchkeeper.demo.chaos import Chaos
from watchkeeper.demo.display import Display
from watchkeeper.demo.events import (
    POLL_SECONDS,
    SLOW_VERSION,
    EventLog,
    UnexpectedEventError,
)
from watchkeeper.demo.fast_policies import (
    CHAOS_ROLLOUT_POLICY,
    DRIFT_POLICY,
    QUEUE_SECONDS,
    ROLLOUT_POLICY,
    STEPS,
)
from watchkeeper.demo.plants import DatabaseError, Plant, PlantError
from watchkeeper.demo.senders import Traffic
from watchkeeper.demo.summarize import summarize
from watchkeeper.demo.summary import Summary, find_problems
from watchkeeper.demo.watchdog import StalledError, Watchdog, stop_if_stalled
from watchkeeper.ledger import Ledger

LABEL_DELAY: Final = 2.0
QUIET_WINDOWS: Final = 3  # windows without drift before the plant changes
RECORDS_IDLE_SECONDS: Final = 60.0
MAX_ERRORS: Final = 5  # different errors of clients in the summary
FAILURES: Final = (
    UnexpectedEventError,
    PlantError,
    StalledError,
    system.SystemUnavailableError,
    DatabaseError,
    OSError,
)

Reading = Callable[[], Awaitable[object]]


class StageError(RuntimeError):
    """A stage failed; the message names the stage and the log to read."""

    def __init__(self, stage: str, why: str, log: Path) -> None:
        super().__init__(f"{stage}: {why}\n  log: {log}")


class Demonstration:
    """One run of the demonstration.

    Args:
        folder: gets the home of the system, the files of the senders and the summary.
        display: shows the timeline.
        plant: the plant of the model.
        data: a table that is the history of the plant.
        source: the URL of the operational database; SQLite in the home if it is empty.
        ledger: the URL of the ledger, an empty database; SQLite in the home if it is empty.
        chaos: whether to kill every kind of process once.
    """

    def __init__(
        self,
        folder: Path,
        display: Display,
        plant: Plant,
        *,
        data: Path | None = None,
        source: str = "",
        ledger: str = "",
        chaos: bool = False,
    ) -> None:
        self._plant = plant
        self._folder = folder.resolve()
        self._home = self._folder / "system"
        self._unfinished = self._folder / "unfinished"
        self._summary_file = self._folder / "summary.json"
        self._display = display
        self._data = data.resolve() if data else None
        rollout_policy = CHAOS_ROLLOUT_POLICY if chaos else ROLLOUT_POLICY
        self._environment = {
            "WATCHKEEPER_HOME": str(self._home),
            "WATCHKEEPER_MODELS": msgspec.json.encode([plant.model]).decode(),
            "WATCHKEEPER_DRIFT_POLICY": msgspec.json.encode(DRIFT_POLICY).decode(),
            "WATCHKEEPER_ROLLOUT_POLICY": msgspec.json.encode(rollout_policy).decode(),
            "WATCHKEEPER_TURN_SECONDS": "0.5",
            "WATCHKEEPER_QUEUE_SECONDS": QUEUE_SECONDS,
            **({"WATCHKEEPER_SOURCE_URL": source} if source else {}),
            **({"WATCHKEEPER_LEDGER_URL": ledger} if ledger else {}),
        }
        self._chaos = Chaos(self._status, display, enabled=chaos)
        self._source = source or f"sqlite:///{self._home / 'operational.db'}"
        self._ledger = ledger
        self._traffic = Traffic(self._folder / "traffic", plant)
        self._waiting_for = ""
        self._background: list[asyncio.Task[None]] = []

    async def run(self) -> tuple[Summary, list[str]]:
        """Run all stages; return the summary and its problems. Stops everything at the end.

        Raises:
            StageError: a stage failed.
            SystemUnavailableError: the system could not be stopped.
        """
        try:
            endpoints = await self._start()
            ledger = Ledger(self._ledger or endpoints.ledger)
            log = EventLog(ledger, self._plant.model, self._display)
            self._background = [
                asyncio.create_task(task) for task in (log.follow(), self._show_traffic())
            ]
            try:
                await self._serve_first_version(log)
                await self._observe_quiet_windows(log, endpoints)
                await self._detect_drift(log)
                await self._replace_first_version(log)
                await self._try_slow_version(log)
                return await self._finish(log)
            finally:
                for task in self._background:
                    task.cancel()
                await asyncio.gather(*self._background, return_exceptions=True)
                ledger.close()
        finally:
            await self._stop_all()

    async def _start(self) -> system.Endpoints:
        async with self._stage("store the plant's history, start the system", "mlflow", self._logs):
            await self._clear()
            history = await asyncio.to_thread(self._plant.seed, self._source, self._data)
            self._display.log(f"{history} in the operational database")
            found = await self._command("up")
            endpoints = msgspec.convert(found, system.Endpoints)
            self._display.log("up", f"V2 {endpoints.v2}, MLflow {endpoints.mlflow}")
            return endpoints

    async def _serve_first_version(self, log: EventLog) -> None:
        async with self._stage(
            "version 1: train, register, gate, serve", "run.", self._training(log)
        ):
            await self._until(log, "version 1 in production", lambda: log.versions(Promoted) == [1])

    async def _observe_quiet_windows(self, log: EventLog, endpoints: system.Endpoints) -> None:
        async with self._stage(
            "clients send requests, labels arrive late, no drift", "sidecar", self._windows(log)
        ):
            await self._traffic.start(
                endpoints,
                system.feedback_token(self._home),
                source=self._source,
                label_delay=LABEL_DELAY,
                data=self._data,
                keep_answers=True,
            )
            await self._until(
                log,
                f"{QUIET_WINDOWS} windows without drift",
                lambda: log.count_windows(1, drifted=False) >= QUIET_WINDOWS,
            )
            await self._chaos.kill("mlflow")
            if log.episodes():
                raise UnexpectedEventError("an episode was opened before the plant has changed")

    async def _detect_drift(self, log: EventLog) -> None:
        scenario = self._plant.scenarios[self._plant.drift]
        async with self._stage("the plant changes", "sidecar", self._windows(log)):
            self._traffic.switch(scenario.name)
            self._display.log(scenario.name, scenario.description)
            await self._until(log, "episode of drift", lambda: bool(log.episodes()))
            await self._chaos.kill("sidecar")
            await self._until(log, "training run for the episode", log.has_episode_training)

    async def _replace_first_version(self, log: EventLog) -> None:
        async with self._stage("version 2: train with new labels", "run.", self._training(log)):
            await self._until(log, "version 2 past its gate", lambda: 2 in log.versions(GatePassed))
        async with self._stage("version 2: rollout", "rollout", self._rollout(log)):
            await self._chaos.during_rollout(self._plant.model, stable=1, canary=2)
            await self._until(
                log, "version 2 in production", lambda: log.versions(Promoted) == [1, 2]
            )

    async def _try_slow_version(self, log: EventLog) -> None:
        async with self._stage("version 3: train, accurate but slow", "run.", self._training(log)):
            slow = self._plant.slow
            parameters = [word for text in slow for word in ("--set", text)]
            run = await self._command("train", self._plant.model, *parameters)
            self._display.log(f"training run {run['run']} started by hand", ", ".join(slow))
            await self._until(
                log, "version 3 past its gate", lambda: SLOW_VERSION in log.versions(GatePassed)
            )
        async with self._stage("version 3: rollout and rollback", "rollout", self._rollout(log)):
            await self._until(
                log, "rollback of version 3", lambda: log.versions(RolledBack) == [SLOW_VERSION]
            )

    async def _finish(self, log: EventLog) -> tuple[Summary, list[str]]:
        async with self._stage("compare every answer", "sidecar", None):
            await self._traffic.stop()
            await self._wait_for_records(log)
            summary, checks = await summarize(
                log,
                self._traffic,
                await self._status(),
                steps=STEPS,
                seconds=self._display.seconds,
                killed=self._chaos.killed,
            )
            text = msgspec.json.format(msgspec.json.encode(summary)) + b"\n"
            await asyncio.to_thread(replace_file, self._summary_file, text)
            errors = list(dict.fromkeys(self._traffic.progress().errors))[:MAX_ERRORS]
            return summary, find_problems(summary, checks, chaos=self._chaos.enabled) + errors

    async def _wait_for_records(self, log: EventLog) -> None:
        """Wait until the ledger has all records, or until no more arrive.

        The summary shows missing records.
        """
        progress = self._traffic.progress()
        answered = sum(counts.answered for counts in progress.requests.values())
        watchdog = Watchdog(idle_seconds=RECORDS_IDLE_SECONDS)
        while True:
            stored, labels = await asyncio.to_thread(log.count_records)
            if stored >= answered and labels >= progress.labels:
                return
            try:
                watchdog.observe((stored, labels))
            except StalledError:
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _clear(self) -> None:
        """Remove what an earlier run has left, and stop its system if it was interrupted."""
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
                await self._command("down")
                self._unfinished.unlink()

    async def _show_traffic(self) -> None:
        while True:
            self._display.progress(self._traffic.progress())
            await asyncio.sleep(2 * POLL_SECONDS)

    # What counts as progress in a stage.

    async def _logs(self) -> object:
        return self._log_sizes("")

    def _training(self, log: EventLog) -> Reading:
        async def read() -> object:
            return len(log.events), self._log_sizes("run."), self._route_times()

        return read

    def _windows(self, log: EventLog) -> Reading:
        async def read() -> object:
            windows = await asyncio.to_thread(log.count_windows, 1)
            answered = sum(self._traffic.progress().versions.values())
            # Answers lead to the first window. After it, answers without windows are no progress.
            return len(log.events), windows, answered if not windows else 0

        return read

    def _rollout(self, log: EventLog) -> Reading:
        async def read() -> object:
            return len(log.events), self._route_times()

        return read

    def _log_sizes(self, prefix: str) -> dict[str, int]:
        return {log.name: log.stat().st_size for log in self._log_files(prefix)}

    def _log_files(self, prefix: str) -> list[Path]:
        return list((self._home / "logs").glob(f"{prefix}*.log"))

    def _route_times(self) -> dict[str, int]:
        """Return when the weights and the state of each rollout have changed."""
        return {file.name: file.stat().st_mtime_ns for file in (self._home / "routes").glob("*")}

    @contextlib.asynccontextmanager
    async def _stage(self, name: str, log: str, read: Reading | None) -> AsyncIterator[None]:
        """Run one stage; it fails when what ``read`` returns does not change for a while.

        A stage without ``read`` only has the time limit of all stages. ``log`` is the prefix of the
        processes whose log explains a failure.
        """
        self._display.stage(name)
        self._waiting_for = "its end"
        watchdog = Watchdog()
        if read is None:
            watchdog = Watchdog(idle_seconds=float("inf"))
            read = _nothing
        try:
            async with stop_if_stalled(watchdog, read):
                yield
        except StalledError as error:
            why = f"{error} while waiting for {self._waiting_for}"
            raise StageError(name, why, self._newest_log(log)) from error
        except TimeoutError as error:
            why = f"{error!r} while waiting for {self._waiting_for}"
            raise StageError(name, why, self._newest_log(log)) from error
        except FAILURES as error:
            raise StageError(name, str(error), self._newest_log(log)) from error

    def _newest_log(self, prefix: str) -> Path:
        logs = sorted(self._log_files(prefix), key=lambda log: log.stat().st_mtime)
        return logs[-1] if logs else self._home / "logs"

    async def _until(self, log: EventLog, what: str, condition: Callable[[], bool]) -> None:
        self._waiting_for = what
        while not condition():
            self._traffic.check()
            log.check()
            for task in self._background:
                if task.done():
                    task.result()  # such a task ends only with an error
            await asyncio.sleep(POLL_SECONDS)

    async def _command(self, *arguments: str) -> Any:
        return await system.command(*arguments, environment=self._environment)

    async def _status(self) -> Any:
        return await self._command("status")


async def _nothing() -> object:
    return None
