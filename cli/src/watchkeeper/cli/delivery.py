"""``watchkeeper wait``: how far a version of the code has come, from its run to its watch."""

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
from watchkeeper.core.names import code_run_name, is_try
from watchkeeper.ledger.errors import LedgerError
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
ENDS: Final[frozenset[State]] = frozenset({"rejected", "promoted", "rolled-back", "replaced"})


class Delivery(msgspec.Struct, frozen=True):
    """How far the code has come.

    Attributes:
        state: the last thing that has happened.
        reason: it in one sentence.
        version: the version that the code has made; None before the gate has judged one.
        run: the training run that has failed last; "" once there is a version.
    """

    state: State
    reason: str
    version: int | None = None
    run: str = ""


def delivery_of(events: Sequence[Event], model: str, code: str) -> Delivery:
    """Return how far a version of the code has come.

    The first version that passes the gate counts, or the last one that is rejected. Later runs of
    the same code, after a drift for example, are no part of the delivery.

    Args:
        events: the events of the model, oldest first.
        model: the model.
        code: the version of the code: on a cluster the training image, as the values name it.
    """
    base = code_run_name(model, code)
    found = Delivery("training", f"no training run of {code} has ended yet")
    for event in events:
        is_judged = found.version is not None and found.state != "rejected"
        match event.details:
            case RunFailed(run=run) if not is_judged and is_try(run, base):
                found = Delivery("run-failed", event.reason, run=run)
            case GateRejected(code_version=of) if not is_judged and of == code:
                found = Delivery("rejected", event.reason, event.version)
            case GatePassed(code_version=of) if not is_judged and of == code:
                found = Delivery("candidate", event.reason, event.version)
            case _ if is_judged:
                found = _next(found, event)
    return found


def _next(found: Delivery, event: Event) -> Delivery:
    """Return how far a version has come after an event of the same model."""
    state, reason = found.state, event.reason
    match event.details:
        case RolloutStarted() | Promoted() if event.version != found.version:
            if _is_replaced(found, event):
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


def _is_replaced(found: Delivery, by: Event) -> bool:
    """Return whether a version loses its place by an event of another version."""
    if found.state in ("candidate", "rollout"):
        # An older version that is promoted again, after a rollback, does not take its place.
        return (by.version or 0) > (found.version or 0)
    return isinstance(by.details, Promoted) and found.state in ("watch", "promoted")


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
    """
    deadline = monotonic() + seconds
    last = Delivery("training", "the ledger has not answered yet")
    while True:
        try:
            found = delivery_of(history(system.ledger, model, kind=KINDS), model, code)
        except LedgerError:
            found = last  # an outage is shorter than a delivery
        if found != last:
            yield found
            last = found
        if _is_final(system, found):
            return
        if monotonic() > deadline:
            raise CommandError(f"not over after {seconds:g} s; at last: {found.reason}")
        time.sleep(POLL_SECONDS)


def _is_final(system: System, found: Delivery) -> bool:
    """Return whether nothing more happens without a new cause."""
    if found.state == "run-failed":  # it is tried again by itself, unless it was refused
        return system.platform.is_refused(found.run)
    return found.state in ENDS
