"""``watchkeeper wait`` says how far a version of the code has come, and ends with its result."""

import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from watchkeeper.cli.commands import CommandError
from watchkeeper.cli.delivery import delivery_of, wait_for_delivery
from watchkeeper.cli.system import System
from watchkeeper.core.events import (
    Event,
    EventDetails,
    GatePassed,
    GateRejected,
    Promoted,
    RolledBack,
    RolloutStarted,
    RunFailed,
    StepFinished,
    TrainingData,
    Watched,
)
from watchkeeper.core.names import code_run_name
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.ledger.events import emit

MODEL, CODE, OTHER = "pump-failure", "registry/pump:2", "registry/pump:1"
RUN = code_run_name(MODEL, CODE)
STEP = StepFinished(percent=10, since=0, until=1, verdict="pass", observations={}, policy={})
STARTED = RolloutStarted(stable=1)


def by(code: str) -> dict[str, Any]:
    """What the gate says about a run of the code."""
    return {
        "run": code_run_name(MODEL, code),
        "trigger": "new code",
        "code_version": code,
        "data": TrainingData("", 0, 0, ""),
        "mlflow_run": "",
    }


def events(*happened: tuple[int | None, EventDetails]) -> list[Event]:
    return [
        Event(f"e{number}", MODEL, version, float(number), f"reason {number}", details)
        for number, (version, details) in enumerate(happened)
    ]


BEFORE: tuple[tuple[int | None, EventDetails], ...] = (
    (1, GatePassed(**by(OTHER))),
    (1, Promoted()),
    (1, Watched(verdict="inconclusive")),
)
OWN = (2, GatePassed(**by(CODE)))


@pytest.mark.parametrize(
    ("happened", "state", "version"),
    [
        ((), "training", None),
        (((None, RunFailed(run=RUN, log="")),), "run-failed", None),
        (((None, RunFailed(run=f"{RUN}-r2", log="")),), "run-failed", None),
        (((None, RunFailed(run=code_run_name(MODEL, OTHER), log="")),), "training", None),
        (((None, RunFailed(run=RUN, log="")), OWN), "candidate", 2),
        (((2, GateRejected(**by(CODE))),), "rejected", 2),
        (((2, GateRejected(**by(CODE))), (3, Promoted())), "rejected", 2),
        (((2, GateRejected(**by(CODE))), (3, GatePassed(**by(CODE)))), "candidate", 3),
        (((2, GateRejected(**by(CODE))), (None, RunFailed(run=RUN, log=""))), "run-failed", None),
        ((OWN, (None, RunFailed(run=RUN, log=""))), "candidate", 2),
        ((OWN, (2, STARTED), (3, GateRejected(**by(CODE)))), "rollout", 2),
        (
            (OWN, (2, Promoted()), (2, Watched(verdict="pass")), (3, GatePassed(**by(CODE)))),
            "promoted",
            2,
        ),
        # A version before it fails its watch, and the one before that is promoted again.
        ((OWN, (1, Promoted()), (2, STARTED)), "rollout", 2),
        ((OWN, (1, STARTED)), "candidate", 2),
        ((OWN,), "candidate", 2),
        ((OWN, (2, STARTED)), "rollout", 2),
        ((OWN, (2, STARTED), (2, STEP)), "rollout", 2),
        ((OWN, (2, STARTED), (2, RolledBack(to=1, percent=10))), "rolled-back", 2),
        ((OWN, (2, STARTED), (3, STARTED)), "replaced", 2),
        ((OWN, (2, STARTED), (2, Promoted(replaces=1))), "watch", 2),
        ((OWN, (2, Promoted()), (2, Watched(verdict="fail"))), "watch", 2),
        (
            (
                OWN,
                (2, Promoted()),
                (2, Watched(verdict="fail")),
                (2, RolledBack(to=1, percent=100)),
            ),
            "rolled-back",
            2,
        ),
        ((OWN, (2, Promoted()), (2, Watched(verdict="pass"))), "promoted", 2),
        ((OWN, (2, Promoted()), (2, Watched(verdict="pass")), (3, STARTED)), "promoted", 2),
        ((OWN, (2, Promoted()), (2, Watched(verdict="pass")), (3, Promoted())), "replaced", 2),
    ],
)
def test_the_last_thing_that_happened_to_the_code_counts(
    happened: Sequence[tuple[int | None, EventDetails]], state: str, version: int | None
) -> None:
    found = delivery_of(events(*BEFORE, *happened), MODEL, CODE)
    assert (found.state, found.version) == (state, version)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    migrate(url)
    return Ledger(url)


class Refusing:
    """A platform whose runs with these names were refused."""

    def __init__(self, *runs: str) -> None:
        self.is_refused = runs.__contains__


def system(ledger: Ledger, *refused: str) -> System:
    opened = {"ledger": ledger, "platform": Refusing(*refused)}
    return cast("System", SimpleNamespace(**opened))


def test_each_change_is_shown_until_the_end(ledger: Ledger) -> None:
    happened = [
        (2, GatePassed(**by(CODE))),
        (2, STARTED),
        (2, Promoted()),
        (2, Watched(verdict="pass")),
    ]
    waiting = wait_for_delivery(system(ledger), MODEL, CODE, 60.0)
    states = [next(waiting).state]
    for event in events(*happened):
        emit(ledger, event)
        states.append(next(waiting).state)
    assert states == ["training", "candidate", "rollout", "watch", "promoted"]
    assert list(waiting) == []
    ledger.close()


def test_a_run_that_was_refused_is_the_end_and_one_that_is_tried_again_is_not(
    ledger: Ledger,
) -> None:
    (event,) = events((None, RunFailed(run=RUN, log="")))
    emit(ledger, event)
    assert [each.state for each in wait_for_delivery(system(ledger, RUN), MODEL, CODE, 60.0)] == [
        "run-failed"
    ]
    waiting = wait_for_delivery(system(ledger), MODEL, CODE, 60.0)
    assert next(waiting).state == "run-failed"
    (_, passed) = events((None, STARTED), OWN)
    emit(ledger, passed)
    assert next(waiting).state == "candidate"
    ledger.close()


def test_an_outage_of_the_ledger_is_waited_out(ledger: Ledger, tmp_path: Path) -> None:
    waiting = wait_for_delivery(system(ledger), MODEL, CODE, 60.0)
    assert next(waiting).state == "training"
    file = tmp_path / "ledger.db"
    content = file.read_bytes()
    ledger.close()
    file.write_bytes(b"no database")
    restored = threading.Timer(3.0, lambda: file.write_bytes(content) and emit_passed())

    def emit_passed() -> None:
        (_, passed) = events((None, STARTED), OWN)
        emit(Ledger(f"sqlite:///{file}"), passed)

    restored.start()
    assert next(waiting).state == "candidate"
    restored.join()
    ledger.close()


def test_waiting_has_a_limit_and_says_what_has_not_happened(ledger: Ledger) -> None:
    clock = iter(range(100))
    waiting = wait_for_delivery(
        system(ledger), MODEL, CODE, 0.5, monotonic=lambda: float(next(clock))
    )
    assert next(waiting).state == "training"
    with pytest.raises(CommandError, match=r"0\.5 s; at last: no training run of registry/pump:2"):
        next(waiting)
    ledger.close()
