"""The phases of a rollout, and the decision of each turn.

This module reads from top to bottom:

1. :data:`PHASES` is the table: what a phase means, what it waits for, and what ends it.
2. :func:`decide` returns the action of one turn.
3. One function per phase lists the rules of the phase in order of precedence.

A rule (:mod:`watchkeeper.rollout.rules`, :mod:`watchkeeper.rollout.registry_rules` and
:mod:`watchkeeper.rollout.route_rules` for what people change in registry and route,
:mod:`watchkeeper.rollout.first_version_rules` without a route) returns an action, or None if it
does not apply. The first action wins. A phase asks in this order: is the version still wanted
(cancellation and commands), is it ready, what does the evidence say, may the controller go on
(gateway, registry, pause). If the result is to wait, :mod:`watchkeeper.rollout.upkeep` may use the
turn. All functions are pure: the same observed state leads to the same action.
"""

from typing import Final, Literal

import msgspec

from watchkeeper.core.names import CANDIDATE, PRODUCTION
from watchkeeper.rollout.actions import Action, Wait
from watchkeeper.rollout.evidence import Judgement
from watchkeeper.rollout.first_version_rules import (
    correct_first_production,
    reject_first_candidate,
    serve_first_version,
)
from watchkeeper.rollout.observed import ObservedState
from watchkeeper.rollout.registry_rules import (
    await_registry,
    commit_promotion,
    follow_production_in_watch,
    reconcile_aliases,
    renumber_reused,
    report_registration,
    settle_registry,
    withdraw_stale_commands,
)
from watchkeeper.rollout.route_rules import repair_state, restore_weights
from watchkeeper.rollout.rules import (
    abort_before_commit,
    abort_if_cancelled,
    abort_on_failed_step,
    await_change,
    await_conclusion,
    await_end_of_watch,
    await_evidence,
    await_first_confirmation,
    await_gateway,
    await_readiness,
    await_start,
    end_watch_without_baseline,
    follow_candidate,
    follow_moved_production,
    hold_while_paused,
    judged,
    next_step,
    promote_on_override,
    record_confirmation,
    reject_superseded_version,
    restart_step,
    roll_back_on_command,
    roll_back_on_failed_version,
    roll_back_on_failed_watch,
)
from watchkeeper.rollout.state import Phase
from watchkeeper.rollout.transitions import finish_promotion, finish_rollback, finish_watch
from watchkeeper.rollout.upkeep import upkeep


class PhaseRow(msgspec.Struct, frozen=True):
    """One row of :data:`PHASES`: ``ends`` has the next phase for each cause that ends the phase."""

    meaning: str
    waits_for: str
    ends: dict[str, Phase]


PHASES: Final[dict[Phase | Literal["no route"], PhaseRow]] = {
    "no route": PhaseRow(
        "no version has traffic yet",
        "a production or candidate version that is ready",
        {"ready": "promoting"},
    ),
    "steady": PhaseRow(
        "production has all traffic",
        "a change of the aliases, or a command",
        {
            "new candidate, or production moved by hand": "starting",
            "candidate aborted, rejected by the gate or superseded": "rolling-back",
            "rollback commanded": "returning",
        },
    ),
    "starting": PhaseRow(
        "the new version is served, without traffic",
        "its readiness: it has answered its own example",
        {
            "ready": "canary",
            "ready, and no canary is needed": "promoting",
            "cancelled, failed, or not ready in time": "rolling-back",
        },
    ),
    "canary": PhaseRow(
        "the new version has the traffic of its canary step",
        "a verdict on the step",
        {
            "step passed": "canary",
            "last step passed, or promotion commanded": "promoting",
            "step failed, cancelled, or not ready": "rolling-back",
        },
    ),
    "promoting": PhaseRow(
        "the new version has all traffic",
        "the gateway, then the aliases in the registry: the commit",
        {
            "committed": "watching",
            "committed, and nothing served before": "steady",
            "cancelled or failed before the commit": "rolling-back",
        },
    ),
    "watching": PhaseRow(
        "the new version is production, the old version stays ready",
        "the end of the watch",
        {
            "the watch is over, or production moved to another version": "steady",
            "failed, rollback commanded, or production moved back": "returning",
        },
    ),
    "rolling-back": PhaseRow(
        "the stable version has all traffic again, after a canary",
        "the gateway, then the registry",
        {"registry settled": "steady"},
    ),
    "returning": PhaseRow(
        "the previous version has all traffic again, after a promotion",
        "the gateway, then the registry",
        {"registry settled": "steady"},
    ),
}


def decide(observed: ObservedState) -> Action:
    """Return the action of this turn."""
    action = phase_action(observed)
    return (upkeep(observed) or action) if isinstance(action, Wait) else action


def phase_action(observed: ObservedState) -> Action:  # noqa: PLR0911 - one line per phase
    """Return what the rules of the current phase say."""
    if observed.route is None:
        return no_route(observed)
    any_phase = repair_state(observed) or restore_weights(observed) or record_confirmation(observed)
    if any_phase:
        return any_phase
    match observed.state.phase:
        case "steady":
            return steady(observed)
        case "starting":
            return starting(observed)
        case "canary":
            return canary(observed)
        case "promoting":
            return promoting(observed)
        case "watching":
            return watching(observed)
        case "rolling-back" | "returning":
            return rolling_back(observed)


def version_in_question(observed: ObservedState) -> int | None:
    """Return the version that the decision is about. Its policy is in force."""
    state = observed.state
    if observed.route is None:
        return observed.first_version
    if state.phase != "steady":
        return state.version
    moved = observed.alias(PRODUCTION)
    return moved if moved not in (None, state.production) else observed.alias(CANDIDATE)


# The phases: their rules in order of precedence


def no_route(observed: ObservedState) -> Action:
    """Serve what is or was production, without a canary: there is nothing to compare it with."""
    return (
        await_registry(observed)
        or renumber_reused(observed)
        or withdraw_stale_commands(observed)
        or correct_first_production(observed)
        or reject_first_candidate(observed)
        or hold_while_paused(observed)
        or serve_first_version(observed)
    )


def steady(observed: ObservedState) -> Action:
    """Compare the registry with the version that serves, and start what is missing."""
    return (
        await_registry(observed)
        or renumber_reused(observed)
        or reconcile_aliases(observed)
        or report_registration(observed)
        or withdraw_stale_commands(observed)
        or follow_moved_production(observed)
        or roll_back_on_command(observed)
        or reject_superseded_version(observed)
        or follow_candidate(observed)
        or await_change(observed)
    )


def starting(observed: ObservedState) -> Action:
    """Wait until the new version has answered its own example, then give it traffic."""
    return (
        abort_if_cancelled(observed)
        or await_start(observed)
        or await_registry(observed)
        or promote_on_override(observed)
        or hold_while_paused(observed)
        or next_step(observed, Judgement("pass", "it is ready"))
    )


def canary(observed: ObservedState) -> Action:
    """Judge a canary step. A failure acts at once, also without gateway or registry."""
    return (
        abort_if_cancelled(observed)
        or await_readiness(observed)
        or restart_step(observed)
        or promote_on_override(observed)
        or await_first_confirmation(observed)
        or await_evidence(observed)
        or abort_on_failed_step(observed)
        or await_gateway(observed)
        or await_conclusion(observed)
        or await_registry(observed)
        or hold_while_paused(observed)
        or next_step(observed, judged(observed))
    )


def promoting(observed: ObservedState) -> Action:
    """Make the new version production in the registry. Setting ``production`` is the commit."""
    return (
        abort_before_commit(observed)
        or await_gateway(observed)
        or await_registry(observed)
        or commit_promotion(observed)
        or finish_promotion(observed)
    )


def watching(observed: ObservedState) -> Action:
    """Compare the new production with the window before; the old version is ready to return."""
    return (
        reconcile_aliases(observed)
        or report_registration(observed)
        or roll_back_on_command(observed)
        or follow_production_in_watch(observed)
        or roll_back_on_failed_version(observed)
        or await_first_confirmation(observed)
        or end_watch_without_baseline(observed)
        or await_evidence(observed)
        or roll_back_on_failed_watch(observed)
        or await_end_of_watch(observed)
        or finish_watch(observed, judged(observed))
    )


def rolling_back(observed: ObservedState) -> Action:
    """After the traffic is back: settle in the registry that the version is taken off."""
    return (
        await_gateway(observed)
        or await_registry(observed)
        or settle_registry(observed)
        or finish_rollback(observed)
    )
