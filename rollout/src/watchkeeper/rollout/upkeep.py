"""Upkeep: what the controller does while the decision of a phase is to wait.

It serves what is needed, retires what is not, and repeats a write that the gateway did not take.
"""

from watchkeeper.core.names import PREVIOUS
from watchkeeper.rollout.actions import Action, Retire, Serve
from watchkeeper.rollout.observed import ObservedState
from watchkeeper.rollout.transitions import advance

REPEAT_SECONDS = 10.0  # the route is written again if its weights are not confirmed by then


def upkeep(observed: ObservedState) -> Action | None:
    """Return the next action of upkeep, in order of precedence; None if nothing is to be done."""
    if observed.route is None and observed.aliases is None:
        return None
    needed = needed_versions(observed)
    return (
        _serve_missing(observed, needed)
        or _repeat_route(observed)
        or _retire_unneeded(observed, needed)
        or _scale(observed, needed)
    )


def needed_versions(observed: ObservedState) -> set[int]:
    """Return the versions that must be served: those of the rollout and those with traffic."""
    state = observed.state
    if observed.route is None:
        # What was promoted last serves until another version does, if its servers are still there.
        kept = [v for v in observed.promotions[:1] if observed.is_served(v)]
        versions = {None if observed.version_error else observed.first_version, *kept}
    elif observed.broken_state:
        versions = {observed.trusted_version}
    elif state.phase == "steady":
        target = observed.alias(PREVIOUS) if observed.rollback_commanded else None
        versions = {state.production, target}
    elif state.phase in ("rolling-back", "returning"):
        versions = {state.stable}
    else:
        versions = {state.version, state.stable}
    return {version for version in versions if version is not None} | set(observed.weights)


def _serve_missing(observed: ObservedState, needed: set[int]) -> Serve | None:
    missing = sorted(v for v in needed if not observed.is_served(v))
    if not missing:
        return None
    return Serve(missing[0], "it is needed and not served", observed.digest(missing[0]))


def _repeat_route(observed: ObservedState) -> Action | None:
    if observed.route is None or observed.confirmed:
        return None
    if observed.now - observed.state.changed <= REPEAT_SECONDS:
        return None
    return advance(observed, "the gateway has not confirmed the weights: written again")


def _retire_unneeded(observed: ObservedState, needed: set[int]) -> Retire | None:
    if observed.route is not None and not observed.confirmed:
        return None  # the gateway may still send requests to it
    unneeded = sorted(set(observed.serving) - needed)
    return Retire(unneeded[0], "nothing needs it any more") if unneeded else None


def _scale(observed: ObservedState, needed: set[int]) -> Serve | None:
    outdated = sorted(v for v in needed if observed.is_outdated(v))
    if not outdated:
        return None
    return Serve(outdated[0], "its number of servers was changed", observed.digest(outdated[0]))
