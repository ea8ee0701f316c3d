"""What became of a training run, from the platform and from the events of others."""

from typing import Final

from watchkeeper.drift.episodes import Outcome
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import Event, history
from watchkeeper.platforms import RunState

PENDING: Final = "pending"
ON_ITS_WAY = ("begun", "step")
ENDS = ("promoted", "rolled-back")


def outcome_of(ledger: Ledger, model: str, run: str, state: RunState | None) -> Outcome:
    """Return what became of ``run``; its ``state`` must have been read before this call.

    So whatever a run that has ended wrote is seen here.
    """
    rejected = _of_run(history(ledger, model, kind="gate-rejected"), run)
    if rejected is not None:
        return Outcome("rejected", rejected.reason)
    passed = _of_run(history(ledger, model, kind="gate-passed"), run)
    if passed is not None and passed.version is not None:
        served = _of_version(ledger, model, passed.version)
        # A run that died between its gate's event and the candidate's alias leads nowhere,
        # unless the rollout has taken its version up.
        if served.kind != PENDING or served.reason or state != "failed":
            return served
    if state == "failed":
        return Outcome("failed", f"run {run} failed, see its log")
    if state == "succeeded" and passed is None:
        return Outcome("failed", f"run {run} ended without a verdict of the gate")
    return Outcome(PENDING, "")


def _of_run(events: list[Event], run: str) -> Event | None:
    return next((event for event in reversed(events) if event.details.get("run") == run), None)


def _of_version(ledger: Ledger, model: str, version: int) -> Outcome:
    """Return what the rollout last said about a version."""
    # Only these kinds: a version may have any number of events about labels and sensors.
    told = history(ledger, model, version=version, kind=(*ON_ITS_WAY, *ENDS))
    # A step and the end that it leads to are told with the same time.
    match max(told, key=lambda event: (event.time, event.kind in ENDS), default=None):
        case None:
            return Outcome(PENDING, "")
        case Event(kind="promoted"):
            return Outcome("promoted", f"version {version} was promoted")
        case Event(kind="rolled-back", reason=reason):
            return Outcome("rolled-back", reason)
        case _:
            return Outcome(PENDING, f"version {version} is on its way")
