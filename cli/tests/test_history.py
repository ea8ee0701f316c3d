"""``watchkeeper history``: order, limits, layout and following."""

import contextlib
import io
import json
import re
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner, Result

from watchkeeper.cli import history as history_module
from watchkeeper.cli import inspect_commands, main
from watchkeeper.cli.history import (
    EventPrinter,
    SinceError,
    _short_time,
    follow_events,
    parse_since,
    read_events,
)
from watchkeeper.cli.system import System
from watchkeeper.core.events import (
    Event,
    EventDetails,
    GatePassed,
    Promoted,
    RolledBack,
    RolloutStarted,
    StepFinished,
    TrainingData,
    Unknown,
    Watched,
    as_json,
)
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.ledger.events import emit, history

STEP = StepFinished(percent=10, since=1.0, until=5.0, verdict="fail", observations={}, policy={})
BACK = RolledBack(to=2, percent=10)
PASSED = GatePassed(
    run="pump-v2-a1",
    trigger="drift of flow",
    code_version="1",
    data=TrainingData("0" * 64, 1000, 0, "history"),
    mlflow_run="run",
)


def test_causes_come_before_effects_of_the_same_time(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    ledger = Ledger(url)
    turn = [
        Event("pump/v3/step-10/1.000", "pump", 3, 5.0, "slower", STEP),
        Event("pump/v3/rolled-back/1.000", "pump", 3, 5.0, "step 10 %: slower", BACK),
        Event("pump/v2/promoted/5.000", "pump", 2, 5.0, "back from v3", Promoted(replaces=3)),
    ]
    earlier = Event("pump/v3/gate", "pump", 3, 4.0, "better", PASSED)
    later = Event("pump/v4/begun/6.000", "pump", 4, 6.0, "candidate", RolloutStarted(stable=2))
    for event in (later, *reversed(turn), earlier):
        emit(ledger, event)
    assert history(ledger, "pump") == [earlier, *turn, later]
    assert history(ledger, "pump", limit=2)[-1] == later
    ledger.close()


NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
HOUR = 3600.0
REASON = (
    "p99 latency of v3 is 48.2 ms, of v2 31.5 ms: slower by 53 %, more than the 20 % that the "
    "policy allows, in both protocols and in each of the last four windows [of 20 requests]"
)


@pytest.fixture(autouse=True)
def _local_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Vienna")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A ledger with six events of two models; the newest is ten seconds old."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    ledger = Ledger(url)
    now = time.time()
    details: list[EventDetails] = [PASSED, RolloutStarted(stable=2), STEP, BACK]
    for number, each in enumerate(details):
        emit(ledger, Event(f"pump-{number}", "pump", 3, now - HOUR * (4 - number), REASON, each))
    emit(ledger, Event("press-0", "press", 1, now - 1.5 * HOUR, "first version", Promoted()))
    emit(
        ledger,
        Event(
            "press-1",
            "press",
            None,
            now - 10,
            "a flow",
            Unknown(another_kind="new", values={"a": 1}),
        ),
    )
    yield System(None, ledger, None, None, ("pump", "press"))  # type: ignore[arg-type]
    ledger.close()


def ids(events: Iterable[Event]) -> list[str]:
    return [event.id for event in events]


@pytest.mark.parametrize("seconds", [1e18, -1e18, 1e308])
def test_a_time_beyond_the_calendar_is_shown_in_seconds(seconds: float) -> None:
    assert _short_time(seconds) == f"{seconds:g} s since 1970"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", NOW.timestamp() - 90),
        ("30m", NOW.timestamp() - 1800),
        ("2h", NOW.timestamp() - 2 * HOUR),
        ("1.5h", NOW.timestamp() - 1.5 * HOUR),
        ("5d", NOW.timestamp() - 120 * HOUR),
        ("1w", NOW.timestamp() - 168 * HOUR),
        ("999999999999w", 0.0),
        ("2026-11-29", datetime(2026, 11, 28, 23, 0, tzinfo=UTC).timestamp()),
        ("2026-11-29T08:30", datetime(2026, 11, 29, 7, 30, tzinfo=UTC).timestamp()),
        ("2026-11-29 08:30:15Z", datetime(2026, 11, 29, 8, 30, 15, tzinfo=UTC).timestamp()),
        ("2026-11-29T08:30+05:00", datetime(2026, 11, 29, 3, 30, tzinfo=UTC).timestamp()),
    ],
)
def test_since_is_a_duration_a_date_or_a_time(text: str, expected: float) -> None:
    assert parse_since(text, NOW) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["yesterday", "2", "h", "-2h", "2026-13-01", "29.11.2026"])
def test_other_values_of_since_are_refused_with_examples(text: str) -> None:
    with pytest.raises(SinceError, match="expected a duration such as 2h"):
        parse_since(text, NOW)


def test_since_and_last_limit_the_events_of_all_models_together(system: System) -> None:
    every = ["pump-0", "pump-1", "pump-2", "press-0", "pump-3", "press-1"]
    assert ids(read_events(system, system.models)) == every
    assert ids(read_events(system, ("press",))) == ["press-0", "press-1"]
    recent = time.time() - 1.75 * HOUR
    assert ids(read_events(system, system.models, since=recent)) == every[3:]
    assert ids(read_events(system, system.models, last=2)) == every[4:]
    assert ids(read_events(system, system.models, since=recent, last=99)) == every[3:]


def test_follow_yields_each_event_once_and_late_ones_too(
    system: System, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = time.time()
    late = Event("late", "pump", 3, now - 3 * HOUR, "", Watched(verdict="pass"))
    new = Event("new", "press", 2, now, "", Promoted())
    failures = [OperationalError("SELECT", {}, ConnectionError("gone"))] * 2

    def read(*arguments: Any, **options: Any) -> list[Event]:
        if failures and polls:
            raise failures.pop()
        return read_events(*arguments, **options)

    polls: list[float] = []

    def sleep(seconds: float) -> None:
        polls.append(seconds)
        for event in (late, new)[len(polls) - 1 : len(polls)]:
            emit(system.ledger, event)
        if len(polls) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(history_module.time, "sleep", sleep)
    monkeypatch.setattr(history_module, "read_events", read)
    seen: list[str] = []
    with contextlib.suppress(KeyboardInterrupt):
        for event in follow_events(system, system.models, last=1):
            seen.append(event.id)  # noqa: PERF401 - the loop ends with an exception
    assert len(polls) == 6
    assert seen == ["press-1", "late", "new"]
    assert len([r for r in caplog.records if "does not answer, retrying" in r.message]) == 1


def test_an_event_stored_while_follow_reads_for_the_first_time_is_not_lost(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = Event("new", "press", 2, time.time(), "", Promoted())
    reads: list[int] = []

    def read(*arguments: Any, **options: Any) -> list[Event]:
        events = read_events(*arguments, **options)
        emit(system.ledger, new)  # after each read; only the first one stores it
        reads.append(len(events))
        return events

    def sleep(_seconds: float) -> None:
        if len(reads) > 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(history_module, "read_events", read)
    monkeypatch.setattr(history_module.time, "sleep", sleep)
    assert followed(system, last=1) == ["press-1", "new"]
    assert reads == [6, 7]


def test_follow_reads_on_when_all_events_of_a_poll_are_new(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    burst = [Event(f"new-{n}", "pump", 4, now + n, "", Promoted()) for n in range(10)]
    polls: list[float] = []

    def sleep(seconds: float) -> None:
        polls.append(seconds)
        if len(polls) == 3:
            raise KeyboardInterrupt
        for event in burst:
            emit(system.ledger, event)

    monkeypatch.setattr(history_module, "POLLED", 3)
    monkeypatch.setattr(history_module.time, "sleep", sleep)
    expected = ["press-1", *ids(burst)]
    assert followed(system, last=1) == expected, "and none of those that 'last' leaves out"


def followed(system: System, *, last: int) -> list[str]:
    seen: list[str] = []
    with contextlib.suppress(KeyboardInterrupt):
        for event in follow_events(system, system.models, last=last):
            seen.append(event.id)  # noqa: PERF401 - the loop ends with an exception
    return seen


def printed(system: System, console: Console) -> list[str]:
    printer = EventPrinter(console, show_model=True)
    for event in read_events(system, system.models):
        printer.print(event)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_terminal_the_reason_is_wrapped_below_its_event(system: System, width: int) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, no_color=True)
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in printed(system, console)]
    assert max(map(len, lines)) <= width
    heads = [line for line in lines if not line.startswith("    ")]
    clock = r"(\d{4}-)?\d\d-\d\d \d\d:\d\d:\d\d"
    for head, rest in zip(
        heads,
        (
            "pump v3 gate-passed",
            "pump v3 begun",
            "pump v3 step 10 % fail",
            "press v1 promoted",
            "pump v3 rolled-back",
            "press new",
        ),
        strict=True,
    ):
        assert re.fullmatch(f"{clock} {rest}", head)
    first = lines[1 : lines.index(heads[1])]
    assert len(first) == -(-len(REASON) // (width - 4))
    assert " ".join(line.strip() for line in first) == REASON


def test_in_a_pipe_each_event_is_one_line(system: System) -> None:
    lines = printed(system, Console(file=io.StringIO(), width=80))
    assert len(lines) == 6
    assert lines[2].endswith(f" pump v3 step 10 % fail: {REASON}")
    assert lines[5].endswith(" press new: a flow")


def test_the_year_is_shown_if_it_is_another_year() -> None:
    console = Console(file=io.StringIO(), width=80)
    when = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC).timestamp()
    EventPrinter(console, show_model=False).print(Event("a", "pump", 1, when, "", Promoted()))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == "2001-02-03 05:05:06 v1 promoted\n"


@pytest.fixture
def opened(system: System, monkeypatch: pytest.MonkeyPatch) -> System:
    monkeypatch.setattr(inspect_commands, "open_system", lambda: system)
    return system


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main.app, ["history", *arguments])


def test_command_prints_an_array_or_lines(opened: System) -> None:
    found = json.loads(run("--json").stdout)
    events = [as_json(event) for event in read_events(opened, opened.models)]
    assert found == json.loads(json.dumps(events))
    assert found[2]["details"]["percent"] == 10
    assert [event["id"] for event in json.loads(run("--json", "--last", "1").stdout)] == ["press-1"]
    assert run("--model", "press").stdout.count("\n") == 2
    assert "press v1" not in run("--model", "press").stdout, "one model needs no name"
    assert run("--since", "2h", "--model", "pump").stdout.count("\n") == 1
    assert run("--since", "never").exit_code == 1
    assert run("--model", "mill").exit_code == 1
    assert run("--last", "0").exit_code == 2


@pytest.mark.parametrize("as_objects", [False, True])
def test_ctrl_c_ends_follow_with_exit_code_0(
    opened: System, monkeypatch: pytest.MonkeyPatch, as_objects: bool
) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(history_module.time, "sleep", interrupt)
    done = run("--follow", *(["--json"] if as_objects else []))
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert len(lines) == len(read_events(opened, opened.models))
    if as_objects:
        assert json.loads(lines[0])["id"] == "pump-0"
