"""The rules of a decision, grouped by what they look at.

A rule takes the observed state. It returns an action, or None if it does not apply.
:mod:`watchkeeper.rollout.phases` has the order in which each phase applies them.
"""

from typing import Final

from watchkeeper.core.names import CANDIDATE, PREVIOUS, PRODUCTION
from watchkeeper.registry import GATE_TAG, ROLLOUT_TAG
from watchkeeper.rollout.actions import (
    Action,
    Retire,
    Wait,
)
from watchkeeper.rollout.evidence import Judgement
from watchkeeper.rollout.observed import ObservedState
from watchkeeper.rollout.transitions import (
    abort_canary,
    advance,
    finish_watch,
    reject_candidate,
    roll_back,
    start_promotion,
    start_rollout,
    start_step,
)

BLOCKED_SECONDS: Final = 10.0  # how often the state notes that a start is blocked
READINESS_LOSSES: Final = 3  # so often a version may lose its readiness in one rollout
AWAIT_GATEWAY: Final = Wait("the gateway has not confirmed the weights yet", "gateway")

# Gateway, registry, pause


def record_confirmation(observed: ObservedState) -> Action | None:
    """Note when the gateway confirmed the weights: the step or the watch counts from then."""
    if not observed.confirmed or observed.state.since is not None:
        return None
    return advance(observed, "the gateway has confirmed the weights", since=observed.now)


def await_first_confirmation(observed: ObservedState) -> Wait | None:
    """Wait until the gateway has confirmed the weights once."""
    return AWAIT_GATEWAY if observed.state.since is None else None


def await_gateway(observed: ObservedState) -> Wait | None:
    """Wait while the gateway routes by other weights than those of the route."""
    return None if observed.confirmed else AWAIT_GATEWAY


def hold_while_paused(observed: ObservedState) -> Wait | None:
    """Wait while a person has paused the rollout."""
    return Wait("paused by a person", "paused") if observed.commands.paused else None


# Steady: what the registry wants next


def follow_moved_production(observed: ObservedState) -> Action | None:
    """Start a rollout of the version that a person made production in the registry."""
    production, state = observed.alias(PRODUCTION), observed.state
    if production is None or production == state.production:
        return None
    if state.production is None and observed.weights == {production: 100}:
        return advance(observed, "it serves already", production=production)
    if observed.version_error:
        return reject_candidate(observed, production, observed.version_error)
    return _start(observed, production, f"production was moved by hand to v{production}")


def reject_superseded_version(observed: ObservedState) -> Action | None:
    """End the rollout of a version that passed its gate, but a newer one came first."""
    newest = max(observed.alias(CANDIDATE) or 0, observed.state.production or 0)
    aliased = set((observed.aliases or {}).values())
    for version, tags in sorted(observed.tags.items()):
        undecided = tags.get(GATE_TAG) == "passed" and ROLLOUT_TAG not in tags
        reused = observed.is_reused(version)  # the number stands for another version
        if undecided and version < newest and version not in aliased and not reused:
            reason = f"superseded by v{newest} before its rollout began"
            return reject_candidate(observed, version, reason)
    return None


def follow_candidate(observed: ObservedState) -> Action | None:
    """Start a rollout of the candidate, or reject it."""
    candidate = observed.alias(CANDIDATE)
    if candidate is None or candidate == observed.state.production:
        return None
    if reason := rejection_reason(observed, candidate):
        return reject_candidate(observed, candidate, reason)
    return _start(observed, candidate, "it is the candidate")


def rejection_reason(observed: ObservedState, version: int) -> str:
    """Return why a candidate does not even start; "" if it may start."""
    if observed.commands.abort == version:
        return "aborted by a person"
    if observed.version_error:
        return observed.version_error
    rejected = observed.tag(version, GATE_TAG) == "rejected"
    if rejected and observed.commands.promote != version:
        return "it has not passed its gate"
    if observed.route is None and observed.has_failed(version):
        return f"never ready: {observed.condition(version)}"
    return ""


def await_change(observed: ObservedState) -> Wait:
    """Wait until something changes: production has all traffic."""
    production = observed.state.production
    if production is None:
        return Wait("the registry has no production, and there was none before", "empty")
    if observed.is_ready(production):
        return Wait(f"v{production} serves", "steady")
    return Wait(observed.condition(production), "repair")


def _start(observed: ObservedState, version: int, reason: str) -> Action:
    if observed.commands.promote != version and (wait := hold_while_paused(observed)):
        return wait
    if observed.has_failed(version):
        return Retire(version, "it failed in an earlier try and is started again")
    return start_rollout(observed, version, reason)


# Cancellation and commands


def abort_if_cancelled(observed: ObservedState) -> Action | None:
    """Take off a version that is no longer wanted."""
    reason = cancel_reason(observed)
    return _abort_undecided(observed, reason) if reason else None


def abort_before_commit(observed: ObservedState) -> Action | None:
    """Take off a version that is no longer wanted or has failed, until it is production."""
    state = observed.state
    if observed.alias(PRODUCTION) == state.version:
        return None
    if reason := cancel_reason(observed):
        return _abort_undecided(observed, reason)
    if state.stable is not None and observed.has_failed(state.version):
        return abort_canary(observed, f"no longer ready: {observed.condition(state.version)}")
    return None


def cancel_reason(observed: ObservedState) -> str:  # noqa: PLR0911 - one line per reason
    """Return why the version is no longer wanted; "" while it is.

    The registry names the version that should serve. If ``candidate`` moves or is dropped, the
    version that had it is taken off, and the newer one starts its own rollout.
    """
    state, commands = observed.state, observed.commands
    if state.stable is None:
        return ""  # there is nothing else to serve
    if commands.abort == state.version:
        return "aborted by a person"
    if observed.aliases is None:
        return ""
    if not observed.is_registered(state.version):
        return "withdrawn: it is no longer in the registry"
    production, candidate = observed.alias(PRODUCTION), observed.alias(CANDIDATE)
    if production not in (None, state.stable, state.version):
        return f"superseded: production was moved by hand to v{production}"
    previous = observed.alias(PREVIOUS)
    if commands.rollback == state.stable and previous not in (None, state.stable):
        return f"superseded: a person commands to leave v{state.stable}"
    if state.version in (production, candidate):
        return ""
    return f"superseded by v{candidate}" if candidate else "withdrawn: it is no longer candidate"


def promote_on_override(observed: ObservedState) -> Action | None:
    """Promote a version without judging it, where that is wanted."""
    reason = promotion_override(observed) if observed.aliases is not None else ""
    return start_promotion(observed, reason, Judgement("inconclusive", reason)) if reason else None


def promotion_override(observed: ObservedState) -> str:
    """Return why the version is promoted without being judged; "" if it must be judged."""
    state = observed.state
    moved_by_hand = observed.alias(PRODUCTION) == state.version
    if observed.commands.promote == state.version:
        return "promoted by a person, without further judging"
    if moved_by_hand and observed.alias(CANDIDATE) == state.version:
        return "it is production in the registry already"
    if moved_by_hand and observed.policy.on_manual_move == "direct":
        return "production was moved by hand"
    return "nothing else serves" if state.stable is None else ""


def roll_back_on_command(observed: ObservedState) -> Action | None:
    """Leave the production version, if a person commands it and there is a version to return to."""
    if observed.aliases is None or not observed.rollback_commanded:
        return None
    target: int | None = observed.state.stable
    if observed.state.phase == "steady":
        target = observed.alias(PREVIOUS)
    if target is None or target == observed.state.production:
        return None
    return roll_back(observed, target, "rollback commanded by a person")


def _abort_undecided(observed: ObservedState, reason: str) -> Action:
    return abort_canary(observed, reason, Judgement("inconclusive", reason))


# Readiness


def await_start(observed: ObservedState) -> Action | None:
    """Wait until the version is ready, for the policy's patience at most.

    While the version is not requested yet, or its start is blocked by something else, such as a
    registry that is down, the patience does not count.
    """
    state, policy, version = observed.state, observed.policy, observed.state.version
    condition = observed.condition(version)
    if observed.has_failed(version):
        return abort_canary(observed, f"never ready: {condition}")
    if observed.is_ready(version):
        return None
    seconds = observed.now - max(state.started, state.blocked_at or 0.0)
    requested = observed.is_served(state.new)  # if not, this turn requests it
    if observed.is_blocked(version) or not requested:
        often = BLOCKED_SECONDS if requested else policy.patience
        if seconds > min(often, policy.patience / 2):
            reason = f"held: {condition}"
            return advance(observed, reason, blocked_at=observed.now, reason=reason)
    elif seconds > policy.patience:
        return abort_canary(observed, f"not ready within {policy.patience:g} s: {condition}")
    return Wait(condition, "starting")


def await_readiness(observed: ObservedState) -> Action | None:
    """Wait while a version with traffic is not ready, for the policy's patience at most."""
    state, policy, version = observed.state, observed.policy, observed.state.version
    condition = observed.condition(version)
    if observed.has_failed(version):
        return abort_canary(observed, f"no longer ready: {condition}")
    if observed.is_ready(version):
        return None
    if state.unready_since is None:
        losses = state.readiness_losses + 1
        return advance(observed, condition, unready_since=observed.now, readiness_losses=losses)
    if observed.now - state.unready_since > policy.patience:
        return abort_canary(observed, f"not ready for {policy.patience:g} s: {condition}")
    return Wait(condition, "unready")


def restart_step(observed: ObservedState) -> Action | None:
    """Start the step again after the version is ready again, unless that happened too often."""
    state = observed.state
    if state.readiness_losses > READINESS_LOSSES:
        return abort_canary(observed, f"lost its readiness {state.readiness_losses} times")
    if state.unready_since is None:
        return None
    reason = "ready again: the step starts again"
    return advance(observed, reason, unready_since=None, since=None)


def roll_back_on_failed_version(observed: ObservedState) -> Action | None:
    """Leave a production version that has failed, if the old version is ready."""
    state = observed.state
    if not observed.has_failed(state.production) or not observed.is_ready(state.stable):
        return None
    return roll_back(observed, state.old, observed.condition(state.production))


# Evidence


def judged(observed: ObservedState) -> Judgement:
    """Return what the evidence says; "inconclusive" without evidence."""
    nothing = f"nothing to judge: {observed.evidence_error}"
    return observed.judgement or Judgement("inconclusive", nothing)


def await_evidence(observed: ObservedState) -> Wait | None:
    """Wait while there is nothing to judge."""
    return Wait(judged(observed).reason, "evidence") if observed.evidence is None else None


def abort_on_failed_step(observed: ObservedState) -> Action | None:
    """Take off a version that failed a check."""
    found = judged(observed)
    return abort_canary(observed, found.reason, found) if found.verdict == "fail" else None


def await_conclusion(observed: ObservedState) -> Action | None:
    """Wait while a step is inconclusive, or abort if the policy says so."""
    state, policy, found = observed.state, observed.policy, judged(observed)
    if found.verdict != "inconclusive":
        return None
    waited = observed.now - (state.since or observed.now)
    if policy.on_no_traffic == "abort" and waited > policy.patience:
        reason = f"inconclusive for {policy.patience:g} s: {found.reason}"
        return abort_canary(observed, reason, found)
    return Wait(f"v{state.version} at {state.canary_percent} %: {found.reason}", "judging")


def next_step(observed: ObservedState, found: Judgement) -> Action:
    """Start the next canary step, or the promotion after the last one."""
    state = observed.state
    if not observed.is_ready(state.stable):
        return Wait(observed.condition(state.stable), "stable")
    percent = next((p for p in observed.policy.steps if p > state.canary_percent), None)
    if percent is not None:
        return start_step(observed, percent, found)
    passed = [p for p in (*(r.percent for r in state.step_results), state.canary_percent) if p]
    reason = f"passed {', '.join(map(str, passed))} %" if passed else "the policy has no steps"
    return start_promotion(observed, reason, found)


def roll_back_on_failed_watch(observed: ObservedState) -> Action | None:
    """Leave a production version that failed a check."""
    found = judged(observed)
    if found.verdict != "fail":
        return None
    return roll_back(observed, observed.state.old, found.reason)


def await_end_of_watch(observed: ObservedState) -> Wait | None:
    """Wait while the watch is inconclusive, for the policy's patience at most."""
    found = judged(observed)
    if found.verdict != "inconclusive" or _watch_expired(observed):
        return None
    return Wait(f"v{observed.state.version} in production: {found.reason}", "watching")


def end_watch_without_baseline(observed: ObservedState) -> Action | None:
    """End a watch that has nothing to compare with, after the policy's patience."""
    if observed.state.baseline is not None or not _watch_expired(observed):
        return None
    reason = "nothing to judge: the state has no window from before the promotion"
    return finish_watch(observed, Judgement("inconclusive", reason))


def _watch_expired(observed: ObservedState) -> bool:
    policy, watched = observed.policy, observed.now - (observed.state.since or observed.now)
    return watched > policy.watch_seconds + policy.patience
