"""The story that ``make demo`` plays: the whole loop once, from an empty folder to the summary."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from watchkeeper.contracts.prediction_id import request_of
from watchkeeper.contracts.spool import replace_file
from watchkeeper.demo import checking, ledger, seed, system
from watchkeeper.demo.chaos import Chaos
from watchkeeper.demo.clients import KITS
from watchkeeper.demo.display import Display
from watchkeeper.demo.machines import Readings
from watchkeeper.demo.scenarios import SCENARIOS
from watchkeeper.demo.shares import p_value
from watchkeeper.demo.summary import Extra, Requests, Summary, problems
from watchkeeper.demo.traffic import MODEL, Traffic
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import Event

SCENARIO: Final = "new-alloy"
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
ROLLOUT_POLICY: Final = {
    "steps": [10, 25, 50],
    "step_seconds": 4.0,
    "minimum_requests": 20,
    "latency_floor": 0.005,
    "patience": 60.0,
    "watch_seconds": 5.0,
}
SLOW: Final = {"onnx": "off", "trees": "200"}
POLL_SECONDS: Final = 0.25
WAIT_FOR_LEDGER: Final = 30.0


class StageError(RuntimeError):
    """A stage of the story failed; names it, and the log to read."""

    def __init__(self, stage: str, why: str, log: str) -> None:
        super().__init__(f"{stage}: {why}" + (f"\n  log: {log}" if log else ""))


class Failed(RuntimeError):  # noqa: N818 - it is what the loop did, not what the code did
    """The loop went another way than the story."""


class Story:
    """One telling. ``folder`` gets the system's home, the senders' files and the summary."""

    def __init__(
        self, folder: Path, display: Display, *, data: Path | None = None, chaos: bool = False
    ) -> None:
        self._folder = folder.resolve()
        self._home = self._folder / "system"
        self._unfinished = self._folder / "unfinished"
        self._display = display
        self._data = data
        self._environment = {
            "WATCHKEEPER_HOME": str(self._home),
            "WATCHKEEPER_DRIFT_POLICY": msgspec.json.encode(DRIFT_POLICY).decode(),
            "WATCHKEEPER_ROLLOUT_POLICY": msgspec.json.encode(ROLLOUT_POLICY).decode(),
            "WATCHKEEPER_TURN_SECONDS": "0.5",
        }
        self._chaos = Chaos(self._status, display, enabled=chaos)
        self._traffic = Traffic(self._folder / "traffic")
        self._endpoints: system.Endpoints | None = None
        self._ledger: Ledger | None = None
        self._events: list[Event] = []
        self._waiting_for = ""

    async def play(self, history: Callable[[], Readings]) -> tuple[Summary, list[str]]:
        """Play all of it; return the summary and what keeps the loop from being closed.

        Raises:
            StageError: a stage failed. Whatever happened, nothing is left running.
        """
        follower: asyncio.Task[None] | None = None
        try:
            await self._begin(history)
            follower = asyncio.create_task(self._follow())
            await self._first_version()
            await self._quiet()
            await self._drift()
            await self._second_version()
            await self._slow_version()
            return await self._end(follower)
        finally:
            await self._stop_all(follower)

    async def _begin(self, history: Callable[[], Readings]) -> None:
        async with self._stage("the machines' past, and the system comes up", "mlflow", 90):
            await self._clear()
            rows = await asyncio.to_thread(
                seed.seed, f"sqlite:///{self._home / 'operational.db'}", history()
            )
            self._display.tell(f"{rows} readings in the operational database")
            found = await self._command("up", seconds=85.0)
            self._endpoints = msgspec.convert(found, system.Endpoints)
            self._ledger = Ledger(self._endpoints.ledger)
            self._display.tell("up", f"V2 {self._endpoints.v2}, MLflow {self._endpoints.mlflow}")

    async def _first_version(self) -> None:
        async with self._stage("version 1: train, register, gate, serve", "run.", 90):
            await self._until("version 1 in production", lambda: self._promoted() == [1])

    async def _quiet(self) -> None:
        async with self._stage("clients ask, labels come late, nothing changes", "sidecar", 75):
            assert self._endpoints is not None  # noqa: S101
            await self._traffic.start(
                self._endpoints,
                system.feedback_token(self._home),
                label_delay=LABEL_DELAY,
                data=self._data,
                keep_answers=True,
            )
            await self._until(
                f"{QUIET_WINDOWS} windows without drift",
                lambda: self._reports(1, drifted=False) >= QUIET_WINDOWS,
            )
            await self._chaos.kill("mlflow")
            if self._episodes():
                raise Failed("an episode was opened although nothing had changed")

    async def _drift(self) -> None:
        scenario = SCENARIOS[SCENARIO]
        async with self._stage("the machines change", "sidecar", 60 + self._chaos.patience):
            self._traffic.switch(scenario.name)
            self._display.tell(scenario.name, scenario.story)
            await self._until("an episode of drift", lambda: bool(self._episodes()))
            await self._chaos.kill("sidecar")
            await self._until(
                "enough labels and a training run",
                lambda: "training" in self._states(),
            )

    async def _second_version(self) -> None:
        async with self._stage("version 2: train on what is new", "run.", 75):
            await self._until("version 2 past its gate", lambda: 2 in self._passed())
        async with self._stage("version 2 takes the traffic", "rollout", 90 + self._chaos.patience):
            await self._chaos.during_rollout(MODEL, stable=1, canary=2)
            await self._until("version 2 in production", lambda: self._promoted() == [1, 2])

    async def _slow_version(self) -> None:
        async with self._stage("version 3: accurate, but slow", "run.", 75):
            parameters = [part for k, v in SLOW.items() for part in ("--set", f"{k}={v}")]
            run = await self._command("train", MODEL, *parameters)
            self._display.tell(f"training run {run['run']} started by hand", " ".join(parameters))
            await self._until("version 3 past its gate", lambda: 3 in self._passed())
        async with self._stage("version 3 is tried and taken off", "rollout", 60):
            await self._until("version 3 rolled back", lambda: self._rolled_back() == [3])

    async def _end(self, follower: asyncio.Task[None]) -> tuple[Summary, list[str]]:
        async with self._stage("the last answers, checked one by one", "sidecar", 150):
            await self._traffic.stop()
            progress = self._traffic.progress()
            answered = sum(counts.answered for counts in progress.requests.values())
            with contextlib.suppress(TimeoutError):  # then the summary tells what is missing
                async with asyncio.timeout(WAIT_FOR_LEDGER):
                    await self._until(
                        "everything in the ledger",
                        lambda: self._kept_all(answered, progress.labels),
                        traffic=False,
                    )
            follower.cancel()
            summary, found = await self._sum_up()
            await asyncio.to_thread(
                replace_file,
                self._folder / "summary.json",
                msgspec.json.format(msgspec.json.encode(summary)) + b"\n",
            )
            return summary, found

    async def _sum_up(self) -> tuple[Summary, list[str]]:
        assert self._endpoints is not None and self._ledger is not None  # noqa: PT018, S101
        progress = self._traffic.progress()
        answers = await asyncio.to_thread(
            checking.read_answers, [self._traffic.answers_file(kit) for kit in KITS]
        )
        wrong = await checking.wrong_answers(
            answers, MODEL, self._endpoints.mlflow, self._traffic.folder
        )
        status = await self._status()
        kept = ledger.kept(self._ledger, MODEL)
        given = {
            protocol: [request_of(a.prediction) for a in answers if a.protocol == protocol]
            for protocol in progress.requests
        }
        known = ledger.events(self._ledger, MODEL)
        steps = ledger.steps(self._ledger, MODEL, known)
        summary = Summary(
            duration_s=round(self._display.seconds, 1),
            requests={
                protocol: Requests(
                    sent=counts.sent,
                    answered=counts.answered,
                    failed=counts.failed,
                    wrong=wrong[protocol],
                    in_ledger=len(kept.answered[protocol] & set(given[protocol])),
                )
                for protocol, counts in progress.requests.items()
            },
            steps=steps,
            shares_p_value=p_value(steps),
            episodes=len(self._episodes(known)),
            jobs=len(status["models"][0]["runs"]),
            versions=len(self._passed(known)),
            promoted=self._promoted(known),
            rolled_back=self._rolled_back(known),
            labels=ledger.count_labels(self._ledger, MODEL),
            killed=self._chaos.killed,
        )
        everything = [request for requests in given.values() for request in requests]
        strange = set().union(*kept.answered.values()) - set(everything)
        extra = Extra(
            labels_accepted=progress.labels,
            repeated_ids=len(everything) - len(set(everything)),
            strange_records=len(strange),
            steps_expected=[
                *((2, percent, "pass") for percent in ROLLOUT_POLICY["steps"]),  # type: ignore[attr-defined]
                (3, ROLLOUT_POLICY["steps"][0], "fail"),  # type: ignore[index]
            ],
        )
        return summary, problems(summary, extra, chaos=self._chaos.enabled) + progress.errors

    async def _clear(self) -> None:
        """Begin from nothing: an earlier telling that was cut off may have left a system."""
        if self._unfinished.exists():
            await self._command("down")
        await asyncio.to_thread(shutil.rmtree, self._home, ignore_errors=True)
        self._home.mkdir()
        self._unfinished.touch()

    async def _stop_all(self, follower: asyncio.Task[None] | None) -> None:
        if follower is not None:
            follower.cancel()
        try:
            await self._traffic.stop()
        finally:
            if self._unfinished.exists():
                await self._command("down", seconds=90.0)
                self._unfinished.unlink()
            if self._ledger is not None:
                self._ledger.close()

    @contextlib.asynccontextmanager
    async def _stage(self, name: str, log: str, seconds: float) -> AsyncIterator[None]:
        """Play one stage; ``log`` begins the names of the processes whose log tells more."""
        self._display.stage(name)
        self._waiting_for = name
        deadline = asyncio.timeout(seconds)
        try:
            async with deadline:
                yield
        except TimeoutError as error:
            if not deadline.expired():
                raise
            why = f"no {self._waiting_for} within {seconds:.0f} s"
            raise StageError(name, why, self._newest_log(log)) from error
        except (Failed, system.UnavailableError, SQLAlchemyError, OSError) as error:
            raise StageError(name, str(error), self._newest_log(log)) from error

    def _newest_log(self, beginning: str) -> str:
        logs = sorted(
            (self._home / "logs").glob(f"{beginning}*.log"), key=lambda p: p.stat().st_mtime
        )
        return str(logs[-1] if logs else self._home / "logs")

    async def _until(
        self, what: str, condition: Callable[[], bool], *, traffic: bool = True
    ) -> None:
        self._waiting_for = what
        while not condition():
            if traffic:
                self._traffic.check()
            self._look_for_wrong_turns()
            await asyncio.sleep(POLL_SECONDS)

    def _look_for_wrong_turns(self) -> None:
        """Fail at once on what the story cannot recover from, instead of at a deadline."""
        for event in self._events:
            expected_rollback = event.version == 3
            if event.kind == "gate-rejected" or (
                event.kind == "rolled-back" and not expected_rollback
            ):
                raise Failed(f"version {event.version} was {event.kind}: {event.reason}")
            if event.kind == "episode" and event.details["state"] in ("cool-down", "given-up"):
                raise Failed(f"the episode's training came to nothing: {event.reason}")

    async def _follow(self) -> None:
        """Show every decision when the ledger has it."""
        assert self._ledger is not None  # noqa: S101
        seen: set[str] = set()
        while True:
            self._events = await asyncio.to_thread(ledger.events, self._ledger, MODEL)
            for event in self._events:
                if event.id not in seen:
                    seen.add(event.id)
                    self._display.event(event)
            self._display.progress(self._traffic.progress())
            await asyncio.sleep(POLL_SECONDS)

    async def _command(self, *arguments: str, seconds: float = system.COMMAND_SECONDS) -> Any:
        return await system.command(*arguments, environment=self._environment, seconds=seconds)

    async def _status(self) -> Any:
        return await self._command("status")

    def _reports(self, version: int, *, drifted: bool) -> int:
        assert self._ledger is not None  # noqa: S101
        return ledger.count_reports(self._ledger, MODEL, version, drifted=drifted)

    def _kept_all(self, answered: int, labels: int) -> bool:
        assert self._ledger is not None  # noqa: S101
        return (
            ledger.count_predictions(self._ledger, MODEL) >= answered
            and ledger.count_labels(self._ledger, MODEL) >= labels
        )

    def _versions(self, kind: str, known: list[Event] | None) -> list[int]:
        events = self._events if known is None else known
        return [e.version for e in events if e.kind == kind and e.version is not None]

    def _promoted(self, known: list[Event] | None = None) -> list[int]:
        return self._versions("promoted", known)

    def _rolled_back(self, known: list[Event] | None = None) -> list[int]:
        return self._versions("rolled-back", known)

    def _passed(self, known: list[Event] | None = None) -> list[int]:
        return self._versions("gate-passed", known)

    def _episodes(self, known: list[Event] | None = None) -> set[str]:
        events = self._events if known is None else known
        return {e.details["episode"] for e in events if e.kind == "episode"}

    def _states(self) -> set[str]:
        return {e.details["state"] for e in self._events if e.kind == "episode"}
