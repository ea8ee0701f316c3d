"""The events of a rollout. They are written into the route's state together with what they tell of,
and stay there until the ledger has them, so that a ledger that is down loses none.
"""

from typing import Any

from watchkeeper.ledger.events import Event
from watchkeeper.registry import ROLLOUT_TAG
from watchkeeper.rollout.state import Finished, State

ROLLED_BACK = "rolled-back: "  # begins the tag of a version that was taken off


def event_of(model: str, state: State, kind: str, time: float, reason: str, **told: Any) -> Event:
    """Tell something about the rollout of a state: once, for each rollout and ``kind``."""
    suffix = f"{kind}-{told['percent']}" if kind == "step" else kind
    return Event(
        id=f"{model}/v{state.version}/{suffix}/{state.started:.3f}",
        model=model,
        version=state.version,
        kind=kind,
        time=time,
        reason=reason,
        details=told,
    )


def step_event(
    model: str,
    state: State,
    step: Finished,
    observations: dict[str, Any],
    policy: dict[str, Any],
) -> Event:
    """Tell how a traffic step ended; whoever counts requests in [since, until) finds its share."""
    return event_of(
        model,
        state,
        "step",
        step.until,
        step.reason,
        percent=step.percent,
        since=step.since,
        until=step.until,
        verdict=step.verdict,
        observations=observations,
        policy=policy,
    )


def promoted_again(model: str, state: State, time: float) -> Event:
    """Tell that the previous version is production once more."""
    return Event(
        id=f"{model}/v{state.stable}/promoted/{time:.3f}",
        model=model,
        version=state.stable,
        kind="promoted",
        time=time,
        reason=f"back from v{state.version}: {state.reason}",
        details={"replaces": state.version},
    )


def refusals(model: str, tags: dict[int, dict[str, str]], now: float) -> tuple[Event, ...]:
    """Tell of versions that were taken off before there was any route, from their tags."""
    return tuple(
        Event(
            id=f"{model}/v{version}/rolled-back/first",
            model=model,
            version=version,
            kind="rolled-back",
            time=now,
            reason=text[ROLLOUT_TAG].removeprefix(ROLLED_BACK),
            details={"to": None, "percent": 0},
        )
        for version, text in sorted(tags.items())
        if text.get(ROLLOUT_TAG, "").startswith(ROLLED_BACK)
    )
