"""Stages of the demonstration: what counts as progress, and how a stage fails."""

import asyncio
import io
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pumps import PLANT
from rich.console import Console

from watchkeeper.core.events import (
    EpisodeChanged,
    Event,
    EventDetails,
    GatePassed,
    GateRejected,
    Promoted,
    RolledBack,
    StepFinished,
    TrainingData,
)
from watchkeeper.demo import demonstration
from watchkeeper.demo.demonstration import Demonstration, StageError
from watchkeeper.demo.display import Display
from watchkeeper.demo.events import EventLog, UnexpectedEventError
from watchkeeper.demo.messages import RequestCounts, TrafficProgress
from watchkeeper.demo.watchdog import Watchdog
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.ledger.events import emit

DATA = TrainingData("0" * 64, 1000, 0, "history")


def event(details: EventDetails, version: int | None = 2, id_: str = "") -> Event:
    kind = type(details).__name__
    return Event(id_ or f"{kind}-{version}", PLANT.model, version, 1.0, "the reason", details)


def gate(kind: type[GatePassed] | type[GateRejected]) -> EventDetails:
    return kind(run="run", trigger="drift", code_version="1", data=DATA, mlflow_run="m")


def episode(state: Any) -> EventDetails:
    return EpisodeChanged(
        episode="episode-1", state=state, attempt=1, run="run", onset=1.0, policy={}
    )


def display() -> Display:
    return Display(Console(file=io.StringIO(), width=200))


def output(shown: Display) -> str:
    assert isinstance(shown.console.file, io.StringIO)
    return shown.console.file.getvalue()


@pytest.fixture
def demo(tmp_path: Path) -> Demonstration:
    (tmp_path / "system" / "logs").mkdir(parents=True)
    (tmp_path / "system" / "routes").mkdir()
    return Demonstration(tmp_path, display(), PLANT)


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    migrate(f"sqlite:///{tmp_path}/ledger.db")
    return EventLog(Ledger(f"sqlite:///{tmp_path}/ledger.db"), PLANT.model, display())


def test_events_are_shown_once(log: EventLog) -> None:
    step = StepFinished(percent=10, since=1, until=2, verdict="pass", observations={}, policy={})
    for each in (event(gate(GatePassed)), event(step), event(episode("training"), None)):
        emit(log.ledger, each)
    for _ in range(2):
        asyncio.run(log.read())
    lines = output(log._display).splitlines()
    assert len(lines) == 3
    text = "\n".join(lines)
    for expected in (
        "v2 gate-passed: the reason",
        "v2 step 10 % pass: the reason",
        "episode episode-1 training: the reason",
    ):
        assert expected in text
    assert log.versions(GatePassed) == [2]
    assert log.episodes() == {"episode-1"}
    assert log.has_episode_training()
    log.check()


@pytest.mark.parametrize(
    ("unexpected", "version", "expected"),
    [
        (gate(GateRejected), 2, "the gate has rejected version 2: the reason"),
        (RolledBack(to=1, percent=10), 2, "version 2 was rolled back: the reason"),
        (episode("cool-down"), None, "the training run of the episode has failed"),
        (episode("given-up"), None, "the training run of the episode has failed"),
        (RolledBack(to=2, percent=10), 3, ""),
        (episode("promoted"), None, ""),
        (Promoted(replaces=1), 2, ""),
    ],
)
def test_unexpected_events_end_the_demonstration(
    log: EventLog, unexpected: EventDetails, version: int | None, expected: str
) -> None:
    log.events = [event(unexpected, version)]
    if not expected:
        log.check()
        return
    with pytest.raises(UnexpectedEventError, match=expected):
        log.check()


def test_events_run_logs_and_routes_are_progress_of_a_training(
    demo: Demonstration, log: EventLog, tmp_path: Path
) -> None:
    read = demo._training(log)
    readings = [asyncio.run(read())] * 2
    changes = (
        lambda: log.events.append(event(Promoted())),
        lambda: (tmp_path / "system/logs/run.pump-failure-v0-a1.log").write_text("one\n"),
        lambda: (tmp_path / "system/logs/run.pump-failure-v0-a1.log").write_text("one\ntwo\n"),
        lambda: (tmp_path / "system/routes/pump-failure.json").write_text("{}"),
    )
    for change in changes:
        change()
        readings.append(asyncio.run(read()))
        assert readings[-1] != readings[-2]
    (tmp_path / "system/logs/sidecar.log").write_text("polls\n")
    assert asyncio.run(read()) == readings[-1]


def test_answers_are_progress_until_there_is_a_window(
    demo: Demonstration, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, windows = 1, 0

    def progress() -> TrafficProgress:
        return TrafficProgress({"http": RequestCounts()}, {1: answers})

    monkeypatch.setattr(demo._traffic, "progress", progress)
    monkeypatch.setattr(log, "count_windows", lambda _version: windows)
    read = demo._windows(log)
    first = asyncio.run(read())
    answers = 2
    second = asyncio.run(read())
    assert second != first
    windows = 1
    third = asyncio.run(read())
    assert third != second
    answers = 3
    assert asyncio.run(read()) == third


def test_stage_without_progress_fails_with_its_log(
    demo: Demonstration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demonstration, "Watchdog", partial(Watchdog, idle_seconds=0.2))
    newest = tmp_path / "system/logs/run.pump-failure-v0-a1.log"
    newest.write_text("stuck\n")

    async def run(log: EventLog) -> None:
        async with demo._stage("version 1", "run.", demo._logs):
            await demo._until(log, "version 1 in production", lambda: False)

    log = EventLog(Ledger("sqlite://"), PLANT.model, display())
    with pytest.raises(StageError) as error:
        asyncio.run(run(log))
    message = str(error.value)
    assert "version 1: no progress for" in message
    assert "while waiting for version 1 in production" in message
    assert message.endswith(f"log: {newest}")


def test_slow_stage_with_progress_does_not_fail(
    demo: Demonstration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demonstration, "Watchdog", partial(Watchdog, idle_seconds=2.0))
    lines: list[str] = []

    def condition() -> bool:
        lines.append("epoch\n")
        (tmp_path / "system/logs/run.a.log").write_text("".join(lines))
        return len(lines) > 20

    async def run(log: EventLog) -> None:
        async with demo._stage("version 1", "run.", demo._logs):
            await demo._until(log, "the end", condition)

    asyncio.run(run(EventLog(Ledger("sqlite://"), PLANT.model, display())))
    assert len(lines) == 21


def test_unexpected_event_fails_the_stage(demo: Demonstration, log: EventLog) -> None:
    log.events = [event(gate(GateRejected))]

    async def run() -> None:
        async with demo._stage("version 2", "run.", None):
            await demo._until(log, "version 2", lambda: False)

    with pytest.raises(StageError, match=r"version 2: the gate has rejected version 2"):
        asyncio.run(run())


def test_missing_records_do_not_stop_the_summary(
    demo: Demonstration, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demonstration, "RECORDS_IDLE_SECONDS", 0.5)
    progress = TrafficProgress({"http": RequestCounts(answered=9)}, {1: 9})
    monkeypatch.setattr(demo._traffic, "progress", lambda: progress)
    asyncio.run(asyncio.wait_for(demo._wait_for_records(log), 60))
