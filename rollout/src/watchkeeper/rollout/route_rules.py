"""The rules about the route: what people change in it is written again.

The route has the weights and the state of the rollout. The event ``route-repaired`` says who has
changed them.
"""

from watchkeeper.core.events import Event, RoutePart, RouteRepaired
from watchkeeper.rollout.actions import Action, SetRoute, Wait, shares
from watchkeeper.rollout.events import repaired_event
from watchkeeper.rollout.observed import ObservedState
from watchkeeper.rollout.state import RolloutState
from watchkeeper.rollout.transitions import advance, write_route


def repair_state(observed: ObservedState) -> Action | None:
    """Give all traffic to a version that was judged before, if the state of the route is broken.

    A pause does not prevent it: this is the way back, as after a failed step.
    """
    if not observed.broken_state:
        return None
    version = observed.trusted_version
    if observed.weights != {version: 100} and not observed.is_ready(version):
        return Wait(f"{observed.broken_state}; {observed.condition(version)}", "broken state")
    return _replace_state(observed, version)


def restore_weights(observed: ObservedState) -> Action | None:
    """Write the weights of the phase again, if a person has changed them.

    The step or the watch counts again from their confirmation. While a version that would get
    traffic is not ready, the other rules decide.
    """
    wanted, found = observed.state.weights, observed.weights
    gaining = [version for version in wanted if wanted[version] > found.get(version, 0)]
    if not wanted or wanted == found or not all(map(observed.is_ready, gaining)):
        return None
    reason = f"the weights were changed to {shares(found)} and are {shares(wanted)} again"
    version = max(wanted, key=lambda version: wanted[version])
    events = _repaired(observed, version, "weights", reason)
    return advance(observed, reason, weights=wanted, events=events)


def _replace_state(observed: ObservedState, version: int) -> SetRoute:
    """broken state → steady or promoting: give all traffic to a version that was judged before.

    The registry may not name it: then the phase "promoting" makes it production there, too. What
    the aliases name is judged afterwards, like after any change of an alias.
    """
    is_production = version == observed.promoted
    reason = f"{observed.broken_state}; v{version} gets all traffic"
    state = RolloutState(
        phase="steady" if is_production else "promoting",
        production=version if is_production else None,
        version=None if is_production else version,
        started=observed.now,
        changed=observed.now,
        canary_percent=0 if is_production else 100,
        verdict="pass",
        reason=reason,
        pending_events=_repaired(observed, version, "state", reason),
    )
    return write_route(observed, {version: 100}, state, reason)


def _repaired(
    observed: ObservedState, version: int, part: RoutePart, reason: str
) -> tuple[Event, ...]:
    """Return the event that a part of the route was written again, if it is not pending already."""
    changed_by = observed.route.changed_by.get(part, "") if observed.route else ""
    details = RouteRepaired(part=part, changed_by=changed_by)
    if changed_by:
        reason += f"; changed by {changed_by}"
    event = repaired_event(observed.model, version, details, observed.now, reason)
    is_pending = any(pending.id == event.id for pending in observed.state.pending_events)
    return () if is_pending else (event,)
