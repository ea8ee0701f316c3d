"""The rules while there is no route: which version gets all traffic, without a canary.

There is nothing to compare it with. Either no version was ever served, or somebody has deleted the
route: then the version that was production serves again, and no candidate takes its place.
"""

from watchkeeper.core.names import CANDIDATE, PRODUCTION
from watchkeeper.registry import ROLLOUT_TAG
from watchkeeper.rollout.actions import Action, DeleteAlias, Serve, SetAlias, SetTag, Wait
from watchkeeper.rollout.events import ROLLED_BACK
from watchkeeper.rollout.observed import ObservedState
from watchkeeper.rollout.registry_rules import rolled_back_tag
from watchkeeper.rollout.rules import rejection_reason
from watchkeeper.rollout.transitions import start_first_rollout


def reject_first_candidate(observed: ObservedState) -> Action | None:
    """End the rollout of a candidate before there is a route: its tag stores the reason."""
    version = observed.first_version
    if version is None or version in (observed.alias(PRODUCTION), observed.promoted):
        return None
    reason = rejection_reason(observed, version)
    if not reason:
        return None
    tagged = observed.tag(version, ROLLOUT_TAG).startswith(ROLLED_BACK)
    if version in observed.tags and not tagged:
        return SetTag(version, rolled_back_tag(reason), reason)
    return DeleteAlias(CANDIDATE, reason)


def correct_first_production(observed: ObservedState) -> Action | None:
    """Take ``production`` from a version that cannot be served, if another was promoted before."""
    named, promoted = observed.alias(PRODUCTION), observed.promoted
    if not observed.version_error or named is None or promoted is None or promoted == named:
        return None
    reason = f"v{named} cannot be served: {observed.version_error}"
    if observed.is_registered(promoted):
        return SetAlias(PRODUCTION, promoted, reason)
    return DeleteAlias(PRODUCTION, reason) if observed.is_served(promoted) else None


def serve_first_version(observed: ObservedState) -> Action:
    """Serve what is or was production, or the first candidate; give it all traffic once ready."""
    version = observed.first_version
    if version is None:
        return Wait("the registry has neither production nor candidate", "empty")
    if observed.version_error:
        return Wait(f"v{version} cannot be served: {observed.version_error}", "refused")
    if not observed.is_served(version):
        return Serve(version, "nothing else serves", observed.digest(version))
    if not observed.is_ready(version):
        return Wait(observed.condition(version), "starting")
    if version == observed.alias(PRODUCTION):
        reason = "the registry's production"
    else:
        reason = "it was promoted last" if version == observed.promoted else "the first version"
    return start_first_rollout(observed, version, reason)
