"""``watchkeeper wait``: what has become of a version of the code, from its run to its watch."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

import msgspec

from watchkeeper.cli.commands import CommandError
from watchkeeper.cli.system import System
from watchkeeper.core.events import (
    Event,
    GatePassed,
    GateRejected,
    Promoted,
    RolledBack,
    RolloutStarted,
    RunFailed,
    StepFinished,
    Watched,
)
from watchkeeper.core.names import code_run_name
from watchkeeper.ledger.events import history

POLL_SECONDS: Final = 2.0
KINDS: Final = (
    RunFailed,
    GateRejected,
    GatePassed,
    RolloutStarted,
    StepFinished,
    Promoted,
    Watched,
    RolledBack,
)
State = Literal[
    "training",
    "run-failed",
    "rejected",
    "candidate",
    "rollout",
    "watch",
    "promoted",
    "rolled-back",
    "replaced",
]
ENDS: Final[frozenset[State]] = frozenset(
    {"run-failed", "rejected", "promoted", "rolled-back", "replaced"}
)


class Delivery(msgspec.Struct, frozen=True):
    """How far the code has come.

    Attributes:
        state: the last thing that has happened.
        reason: it in one sentence.
        version: the version that the code has made; None before the gate has judged one.
    """

    state: State
    reason: str
    version: int | None = None

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen without a new cause."""
        return self.state in ENDS


def delivery_of(events: Sequence[Event], model: str, code: str) -> Delivery:
    """Return how far a version of the code has come.

    Args:
        events: the events of the model, oldest first.
        model: the model.
        code: the version of the code: on a cluster the training image, as the values name it.
    """
    run = code_run_name(model, code)
    found = Delivery("training", f"no training run of {code} has ended yet")
    for event in events:
        match event.details:
            case RunFailed(run=name) if name == run or name.startswith(f"{run}-r"):
                found = Delivery("run-failed", event.reason)
            case GateRejected(code_version=of) if of == code:
                found = Delivery("rejected", event.reason, event.version)
            case GatePassed(code_version=of) if of == code:
                found = Delivery("candidate", event.reason, event.version)
            case _ if found.version is not None:
                found = _next(found, event)
    return found


def _next(found: Delivery, event: Event) -> Delivery:
    """Return how far a version has come after an event of the same model."""
    state, reason = found.state, event.reason
    match event.details:
        case RolloutStarted() | Promoted() if event.version != found.version:
            if _is_replaced(state, event):
                state = "replaced"
                reason = f"version {event.version} has taken the place of {found.version}"
        case _ if event.version != found.version:
            pass
        case RolloutStarted() | StepFinished():
            state = "rollout"
        case Promoted():
            state = "watch"
        case Watched(verdict=verdict) if verdict != "fail":
            state = "promoted"
        case RolledBack():
            state = "rolled-back"
    return found if state == found.state else Delivery(state, reason, found.version)


def _is_replaced(state: State, by: Event) -> bool:
    """Return whether a version loses its place by an event of another version."""
    if isinstance(by.details, Promoted):
        return state in ("candidate", "rollout", "watch", "promoted")
    return state in ("candidate", "rollout")


def wait_for_delivery(
    system: System,
    model: str,
    code: str,
    seconds: float,
    *,
    monotonic: Callable[[], float] = time.monotonic,
) -> Iterator[Delivery]:
    """Yield how far a version of the code has come, each time that it changes, until its end.

    Raises:
        CommandError: the end is not reached in time.
        LedgerError: the ledger does not answer.
    """
    deadline = monotonic() + seconds
    last: Delivery | None = None
    while last is None or not last.is_final:
        found = delivery_of(history(system.ledger, model, kind=KINDS), model, code)
        if found != last:
            yield found
        elif monotonic() > deadline:
            raise CommandError(f"not over after {seconds:g} s; at last: {found.reason}")
        else:
            time.sleep(POLL_SECONDS)
        last = found
