"""The rules about the registry: what it must name after a decision, and what people change in it.

Somebody may delete aliases, versions and models in the registry. That is an answer and no outage:
nothing waits until a deleted version comes back. What serves keeps serving.
"""

from typing import Final

from watchkeeper.core.names import CANDIDATE, PREVIOUS, PRODUCTION
from watchkeeper.core.version import short_digest
from watchkeeper.registry import DIGEST_TAG, NO_DIGEST, ROLLOUT_TAG
from watchkeeper.rollout.actions import (
    Action,
    DeleteAlias,
    RegisterAgain,
    SetAlias,
    SetTag,
    Wait,
    WithdrawCommands,
)
from watchkeeper.rollout.events import ROLLED_BACK
from watchkeeper.rollout.observed import ObservedState
from watchkeeper.rollout.transitions import (
    advance,
    report_found_production,
    report_lost_production,
    roll_back,
)

TAG_LENGTH: Final = 1000  # characters; MLflow limits its tags
PROMOTED: Final = "promoted"
CANDIDATE_COMMANDS: Final = ("promote", "abort")
ALL_COMMANDS: Final = (*CANDIDATE_COMMANDS, "rollback")


def await_registry(observed: ObservedState) -> Wait | None:
    """Wait while the registry does not answer."""
    return Wait("the registry does not answer", "registry") if observed.aliases is None else None


def commit_promotion(observed: ObservedState) -> Action | None:
    """Set ``previous``, then ``production``. The second one is the commit.

    An alias cannot name a deleted version. Without the old one there is no ``previous``.
    """
    state, previous = observed.state, observed.alias(PREVIOUS)
    if state.stable is not None and observed.is_registered(state.stable):
        if previous != state.stable:
            return SetAlias(PREVIOUS, state.stable, f"v{state.version} becomes production")
    elif state.stable is not None and previous is not None:
        return DeleteAlias(PREVIOUS, f"v{state.stable} is no longer in the registry")
    if observed.alias(PRODUCTION) != state.version and observed.is_registered(state.version):
        return SetAlias(PRODUCTION, state.new, state.reason)
    return None


def renumber_reused(observed: ObservedState) -> Action | None:
    """Give a new number to content that an alias names by a number that was used before.

    A number stands for one content, in the names of servers, in records and in events. The new
    version is judged like any other. A rollback never leads to content that was not judged.
    """
    previous = observed.alias(PREVIOUS)
    if previous is not None and observed.is_reused(previous):
        return DeleteAlias(PREVIOUS, f"the registry names other content by v{previous}")
    for alias in (PRODUCTION, CANDIDATE):
        version = observed.alias(alias)
        if version is None or not observed.is_reused(version):
            continue
        content, known = observed.tag(version, DIGEST_TAG), observed.known_digest(version)
        if content == NO_DIGEST:
            return DeleteAlias(alias, f"v{version} is not a version of Watchkeeper in the registry")
        reason = (
            f"the registry names {short_digest(content)} by v{version}, which stands for "
            f"{short_digest(known)}"
        )
        again = observed.registered_again(content)
        if again is not None:
            return SetAlias(alias, again, reason)
        if observed.highest is None:
            return Wait(f"the ledger does not answer, and {reason}", "numbers")
        used = {observed.highest, *observed.tags, *observed.serving, *observed.state.versions}
        return RegisterAgain(version, content, max(used), reason)
    return None


def report_registration(observed: ObservedState) -> Action | None:
    """Report once that the registry no longer names what is in production, or names it again."""
    state, named = observed.state, observed.alias(PRODUCTION)
    if observed.aliases is None or state.production is None:
        return None
    is_lost = named is None or (named == state.production and not observed.is_registered(named))
    if is_lost == (state.unregistered_since is not None):
        return None
    return report_lost_production(observed) if is_lost else report_found_production(observed)


def reconcile_aliases(observed: ObservedState) -> Action | None:
    """Write what is missing in the registry after a promotion: tag, commands, ``candidate``."""
    production = observed.state.production
    if production is None or observed.aliases is None:
        return None
    registered = observed.is_registered(production)
    if registered and observed.tag(production, ROLLOUT_TAG) != PROMOTED:
        return SetTag(production, PROMOTED, "it is production")
    if withdraw := _withdraw_decided(observed, production, CANDIDATE_COMMANDS):
        return withdraw
    if registered and observed.alias(CANDIDATE) == production:
        named = observed.alias(PRODUCTION)
        if named is None:
            return SetAlias(PRODUCTION, production, "the candidate serves already")
        if named == production:
            return DeleteAlias(CANDIDATE, f"v{production} is production")
    return None


def follow_production_in_watch(observed: ObservedState) -> Action | None:
    """End the watch if a person has moved production in the registry."""
    state, moved = observed.state, observed.alias(PRODUCTION)
    if observed.aliases is not None and moved == state.stable and observed.is_registered(moved):
        return roll_back(observed, state.old, "production was moved back by hand")
    if moved not in (None, state.production):
        return advance(observed, f"production was moved by hand to v{moved}", phase="steady")
    return None


def settle_registry(observed: ObservedState) -> Action | None:
    """Write what is missing in the registry after a rollback: aliases, tag, commands."""
    state = observed.state
    reason = f"v{state.version} is taken off: {state.reason}"
    if action := _settle_production(observed, reason):
        return action
    if observed.alias(PREVIOUS) == state.stable:
        return DeleteAlias(PREVIOUS, "it is production itself")
    text = rolled_back_tag(state.reason)
    registered = observed.is_registered(state.version)
    if registered and observed.tag(state.version, ROLLOUT_TAG) != text:
        return SetTag(state.new, text, reason)
    if withdraw := _withdraw_decided(observed, state.version, ALL_COMMANDS):
        return withdraw  # before the next phase, which would carry the command out again
    if registered and observed.alias(CANDIDATE) == state.version:
        return DeleteAlias(CANDIDATE, reason)
    return None


def _settle_production(observed: ObservedState, reason: str) -> Action | None:
    """Let ``production`` name the stable version, or nothing where the registry has lost it."""
    state, named = observed.state, observed.alias(PRODUCTION)
    if state.stable is None or named not in (None, state.version):
        return None
    if observed.is_registered(state.stable):
        return SetAlias(PRODUCTION, state.old, reason)
    if named is None:
        return None
    return DeleteAlias(PRODUCTION, f"v{state.stable} serves and is no longer in the registry")


def rolled_back_tag(reason: str) -> str:
    """Return the tag of a version that was taken off."""
    return (ROLLED_BACK + reason)[:TAG_LENGTH]


def _withdraw_decided(
    observed: ObservedState, version: int | None, names: tuple[str, ...]
) -> WithdrawCommands | None:
    """Withdraw the commands about a version whose rollout is decided.

    They must not act on a later rollout of the same version.
    """
    standing = observed.commands.standing
    found = {n: v for n, v in standing.items() if n in names and v == version}
    reason = f"the rollout of v{version} is decided"
    return WithdrawCommands(found, reason) if found else None


def withdraw_stale_commands(observed: ObservedState) -> WithdrawCommands | None:
    """Withdraw commands that nothing can carry out, while no rollout is in progress.

    A command names a version and is meant for one rollout of it. The turn reads commands before
    the registry, so an alias that is missing here was missing when the command was read.
    """
    production = observed.state.production or observed.alias(PRODUCTION)
    wanted = {observed.alias(CANDIDATE), observed.alias(PRODUCTION)}
    standing = observed.commands.standing
    stale = {n: v for n, v in standing.items() if n in CANDIDATE_COMMANDS and v not in wanted}
    leaving = observed.commands.rollback
    no_target = observed.alias(PREVIOUS) in (None, production)
    if leaving is not None and (leaving != production or no_target):
        stale["rollback"] = leaving
    reason = "its version is no longer what the command was given for"
    return WithdrawCommands(stale, reason) if stale else None
