"""The outcome of a training run, from its state on the platform and the events of its version."""

from typing import Final

from watchkeeper.core.events import (
    Event,
    GateDecided,
    GatePassed,
    GateRejected,
    Promoted,
    RolledBack,
    RolloutStarted,
    StepFinished,
)
from watchkeeper.drift.episodes import RunOutcome
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import history
from watchkeeper.platforms import RunState

IN_PROGRESS: Final = (RolloutStarted, StepFinished)
ENDED: Final = (Promoted, RolledBack)


def run_outcome(ledger: Ledger, model: str, run: str, state: RunState | None) -> RunOutcome:
    """Return the outcome of a training run.

    Args:
        ledger: the ledger.
        model: the model.
        run: the name of the run.
        state: the state of the run on the platform, None if it is not there. Read the state before
            this call: then the events that an ended run has written are found here.
    """
    rejected = _gate_event(history(ledger, model, kind=GateRejected), run)
    if rejected is not None:
        return RunOutcome("rejected", rejected.reason)
    passed = _gate_event(history(ledger, model, kind=GatePassed), run)
    if passed is not None and passed.version is not None:
        rollout = _rollout_outcome(ledger, model, passed.version)
        # A run that died after the event of its gate and before it set the alias "candidate" has
        # failed, unless a rollout of its version has started.
        if rollout.kind != "pending" or rollout.reason or state != "failed":
            return rollout
    if state == "failed":
        return RunOutcome("failed", f"run {run} failed, see its log")
    if state == "succeeded" and passed is None:
        return RunOutcome("failed", f"run {run} ended without a decision of the gate")
    return RunOutcome("pending", "")


def _gate_event(events: list[Event], run: str) -> Event | None:
    for event in reversed(events):
        if isinstance(event.details, GateDecided) and event.details.run == run:
            return event
    return None


def _rollout_outcome(ledger: Ledger, model: str, version: int) -> RunOutcome:
    # Only these kinds: a version may have any number of events about labels and sensors.
    events = history(ledger, model, version=version, kind=(*IN_PROGRESS, *ENDED))
    # The last step and the end of a rollout may have the same time; the end counts.
    last = max(events, key=lambda e: (e.time, isinstance(e.details, ENDED)), default=None)
    match last:
        case None:
            return RunOutcome("pending", "")
        case Event(details=Promoted()):
            return RunOutcome("promoted", f"version {version} was promoted")
        case Event(details=RolledBack(), reason=reason):
            return RunOutcome("rolled-back", reason)
        case _:
            return RunOutcome("pending", f"the rollout of version {version} is in progress")
