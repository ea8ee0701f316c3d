"""How one phase becomes the next: the writes of the route.

Each function returns the write that starts, continues or ends a rollout: weights, state and events
together, so that none of them exists without the others. :mod:`watchkeeper.rollout.phases` decides
when a transition is due.
"""

from typing import Any

import msgspec

from watchkeeper.core.events import (
    Event,
    ProductionRegistered,
    ProductionUnregistered,
    Promoted,
    RolledBack,
    RolloutStarted,
    StepFinished,
    Watched,
)
from watchkeeper.platforms import Route
from watchkeeper.registry import REUSED_TAG
from watchkeeper.rollout.actions import Action, Retire, Serve, SetRoute, Wait
from watchkeeper.rollout.events import (
    first_rejections,
    promoted_again,
    registration_event,
    reused_event,
    rollout_event,
)
from watchkeeper.rollout.evidence import Judgement
from watchkeeper.rollout.observed import ObservedState
from watchkeeper.rollout.state import RolloutState, StepResult, Window


def advance(
    observed: ObservedState,
    action_reason: str,
    /,
    *,
    weights: dict[int, int] | None = None,
    events: tuple[Event, ...] = (),
    **changes: Any,
) -> SetRoute:
    """Continue the rollout: change fields of its state, and the weights if they are given.

    Args:
        observed: the rollout to continue.
        action_reason: the reason of the action, for the log. The state has a ``reason`` of its own.
        weights: the new traffic in per cent by version. It counts from its confirmation.
        events: the events that report the change.
        changes: new values of fields of :class:`~watchkeeper.rollout.state.RolloutState`.
    """
    if weights is not None and weights != observed.weights:
        changes["since"] = None
    state = msgspec.structs.replace(
        observed.state,
        changed=observed.now,
        pending_events=(*_unpublished(observed), *events),
        **changes,
    )
    return write_route(observed, weights or observed.weights, state, action_reason)


# Start of a rollout


def start_first_rollout(observed: ObservedState, version: int, reason: str) -> SetRoute:
    """no route → promoting: give all traffic to a version that is ready, without a canary."""
    rejected = (
        () if observed.published else first_rejections(observed.model, observed.tags, observed.now)
    )
    state = RolloutState(
        phase="promoting",
        version=version,
        started=observed.now,
        changed=observed.now,
        canary_percent=100,
        verdict="pass",
        reason=f"{reason}: no canary",
        pending_events=(*rejected, *_reused(observed, version)),
    )
    return write_route(observed, {version: 100}, state, "it has answered its own example")


def start_rollout(observed: ObservedState, version: int, reason: str) -> SetRoute:
    """steady → starting: serve a version that is to replace the one with the traffic."""
    most_traffic = max(observed.weights, key=lambda v: (observed.weights[v], -v))
    stable = observed.state.production or most_traffic  # an emptied state has no production
    state = RolloutState(
        phase="starting",
        version=version,
        stable=None if stable == version else stable,
        started=observed.now,
        reason=f"being served; {reason}",
    )
    details = RolloutStarted(stable=state.stable, digest=observed.digest(version))
    event = rollout_event(observed.model, state, details, observed.now, reason)
    return _replace_rollout(observed, reason, state, event)


def reject_candidate(observed: ObservedState, version: int, reason: str) -> SetRoute:
    """steady → rolling-back: end the rollout of a version before the version is served."""
    state = RolloutState(
        phase="rolling-back",
        version=version,
        stable=observed.state.production,
        started=observed.now,
        verdict="fail",
        reason=reason,
    )
    details = RolledBack(to=state.stable, percent=0)
    event = rollout_event(observed.model, state, details, observed.now, reason)
    return _replace_rollout(observed, reason, state, event)


# Forward


def start_step(observed: ObservedState, percent: int, found: Judgement) -> SetRoute:
    """starting or canary → canary: give the version ``percent`` of the traffic."""
    state = observed.state
    step_results, events = _finish_step(observed, found)
    reason = found.reason
    if state.canary_percent:
        reason = f"{state.canary_percent} % passed: {found.reason}"
    return advance(
        observed,
        reason,
        weights={state.old: 100 - percent, state.new: percent},
        events=events,
        phase="canary",
        canary_percent=percent,
        verdict="",
        reason=f"{percent} % of the traffic, being judged; {reason}",
        step_results=step_results,
    )


def start_promotion(observed: ObservedState, reason: str, found: Judgement) -> Action:
    """starting or canary → promoting: give the version all traffic."""
    state = observed.state
    if not observed.is_ready(state.version):
        return Wait(observed.condition(state.version), "starting")
    step_results, events = _finish_step(observed, found)
    baseline = None
    if state.stable is not None:
        since = observed.now - observed.policy.watch_seconds
        if state.phase == "canary" and state.since is not None:
            since = state.since
        baseline = Window(state.stable, since, observed.now)
    return advance(
        observed,
        reason,
        weights={state.new: 100},
        events=events,
        phase="promoting",
        canary_percent=100,
        verdict=found.verdict,
        reason=reason,
        step_results=step_results,
        baseline=baseline,
        unready_since=None,
    )


def finish_promotion(observed: ObservedState) -> SetRoute:
    """promoting → watching, or steady where nothing served before."""
    model, state, now = observed.model, observed.state, observed.now
    promoted = Promoted(replaces=state.stable, digest=observed.digest(state.new))
    events = [rollout_event(model, state, promoted, now, state.reason)]
    if state.stable is None:
        reason = "no version served before: no comparison and no rollback is possible"
        details = Watched(verdict="inconclusive")
        events.append(rollout_event(model, state, details, now, reason))
    since = now if state.since is None else state.since
    return advance(
        observed,
        "committed",
        events=tuple(events),
        phase="steady" if state.stable is None else "watching",
        production=state.version,
        unregistered_since=None,
        watch_until=None if state.stable is None else since + observed.policy.watch_seconds,
    )


def finish_watch(observed: ObservedState, found: Judgement) -> SetRoute:
    """watching → steady: the version stays in production."""
    state = observed.state
    details = Watched(verdict=found.verdict, observations=found.observations)
    return advance(
        observed,
        f"the watch of v{state.version} is over: {found.reason}",
        events=(rollout_event(observed.model, state, details, observed.now, found.reason),),
        phase="steady",
        verdict=found.verdict,
        reason=f"promoted and watched: {found.reason}",
    )


# Back


def abort_canary(observed: ObservedState, reason: str, found: Judgement | None = None) -> Action:
    """starting, canary or promoting → rolling-back: give all traffic to the stable version.

    The weights come first. ``rolling-back`` does the rest. Without ``found`` the verdict is "fail".
    """
    state = observed.state
    if state.stable is None:
        reason = f"v{state.version} must be taken off ({reason}), but nothing else serves"
        return Wait(reason, "rollback")
    weights = {state.old: 100}
    if weights != observed.weights and not observed.is_ready(state.stable):
        condition = observed.condition(state.stable)
        return Wait(f"v{state.version} must be taken off ({reason}), but {condition}", "rollback")
    found = found or Judgement("fail", reason)
    step_results, events = _finish_step(observed, found)
    details = RolledBack(to=state.stable, percent=state.canary_percent)
    event = rollout_event(observed.model, state, details, observed.now, reason)
    return advance(
        observed,
        reason,
        weights=weights,
        events=(*events, event),
        phase="rolling-back",
        canary_percent=0,
        verdict=found.verdict,
        reason=reason,
        step_results=step_results,
        unready_since=None,
    )


def roll_back(observed: ObservedState, target: int, reason: str) -> Action:
    """watching or steady → returning: give all traffic to ``target``, once it is ready."""
    state = observed.state
    leaving = state.production
    if state.phase == "steady":
        if observed.has_failed(target):
            return Retire(target, "it failed in an earlier try and is started again")
        state = RolloutState(
            production=leaving,
            version=leaving,
            stable=target,
            started=observed.now,
            unregistered_since=state.unregistered_since,
            pending_events=state.pending_events,
            digests=state.digests,
        )
    if not observed.is_served(target):
        return Serve(target, reason, observed.digest(target))
    if not observed.is_ready(target):
        condition = observed.condition(target)
        return Wait(f"v{leaving} must be taken off ({reason}), but {condition}", "rollback")
    details = RolledBack(to=target, percent=100)
    return advance(
        msgspec.structs.replace(observed, state=state),
        reason,
        weights={target: 100},
        events=(rollout_event(observed.model, state, details, observed.now, reason),),
        phase="returning",
        canary_percent=0,
        verdict="fail",
        reason=reason,
    )


def finish_rollback(observed: ObservedState) -> SetRoute:
    """rolling-back or returning → steady. After "returning" the stable version is promoted again,
    which is an event of its own.
    """
    state = observed.state
    events: tuple[Event, ...] = ()
    if state.phase == "returning":
        events = (promoted_again(observed.model, state, observed.now),)
    return advance(
        observed,
        f"v{state.version} is taken off",
        events=events,
        phase="steady",
        production=state.stable,
    )


# The registry


def report_lost_production(observed: ObservedState) -> SetRoute:
    """Report that the registry does not name the version in production. It keeps serving."""
    production = observed.state.production
    if observed.is_registered(production):
        lost = ProductionUnregistered(lost="alias")
        reason = (
            f"no alias 'production' names v{production}, which keeps serving; to name it again, or "
            "to serve another version, set the alias in MLflow"
        )
    else:
        lost = ProductionUnregistered(lost="version")
        reason = (
            f"v{production} is no longer in the registry and keeps serving; no rollback to it is "
            "possible; to replace it, train a version or set the alias 'production' in MLflow"
        )
    return advance(
        observed,
        reason,
        events=(registration_event(observed.model, production, lost, observed.now, reason),),
        unregistered_since=observed.now,
    )


def report_found_production(observed: ObservedState) -> SetRoute:
    """Report that the registry names the version in production again."""
    production, reason = observed.state.production, "the registry names the production version"
    details = ProductionRegistered()
    return advance(
        observed,
        reason,
        events=(registration_event(observed.model, production, details, observed.now, reason),),
        unregistered_since=None,
    )


def _replace_rollout(
    observed: ObservedState, reason: str, state: RolloutState, event: Event
) -> SetRoute:
    """Write the state of a new rollout over the one of the last rollout; the weights stay."""
    state = msgspec.structs.replace(
        state,
        production=observed.state.production,
        unregistered_since=observed.state.unregistered_since,
        since=observed.state.since,
        changed=observed.now,
        pending_events=(*_unpublished(observed), *_reused(observed, state.new), event),
    )
    return write_route(observed, observed.weights, state, reason)


def write_route(
    observed: ObservedState, weights: dict[int, int], state: RolloutState, reason: str
) -> SetRoute:
    """Write weights and state, with the content of the versions in the state."""
    known = {version: observed.digest(version) for version in sorted(state.versions)}
    digests = {version: digest for version, digest in known.items() if digest}
    state = msgspec.structs.replace(state, digests=digests)
    return SetRoute(Route(weights, state.dump()), reason)


def _reused(observed: ObservedState, version: int) -> tuple[Event, ...]:
    """Return the event about a version that was registered again, before its rollout."""
    tags = observed.tags.get(version, {})
    reused = tags.get(REUSED_TAG, "")
    first = observed.known_digest(int(reused)) if reused else ""
    event = reused_event(observed.model, version, tags, first, observed.now)
    return () if event is None else (event,)


def _finish_step(
    observed: ObservedState, found: Judgement
) -> tuple[tuple[StepResult, ...], tuple[Event, ...]]:
    """Return all step results and the event of the current step.

    A step that never had confirmed traffic has neither.
    """
    state = observed.state
    if state.phase != "canary" or state.since is None:
        return state.step_results, ()
    until = max(observed.now, state.since)
    result = StepResult(state.canary_percent, state.since, until, found.verdict, found.reason)
    details = StepFinished(
        percent=result.percent,
        since=result.since,
        until=result.until,
        verdict=result.verdict,
        observations=found.observations,
        policy=msgspec.to_builtins(observed.policy),
    )
    event = rollout_event(observed.model, state, details, until, found.reason)
    return (*state.step_results, result), (event,)


def _unpublished(observed: ObservedState) -> tuple[Event, ...]:
    return () if observed.published else observed.state.pending_events
