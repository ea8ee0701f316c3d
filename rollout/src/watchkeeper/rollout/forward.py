"""The way forwards: a version is made ready, takes traffic step by step, becomes production, and
is watched.
"""
# ruff: noqa: C901, PLR0911 - a decision is a list of cases, each with its answer

from watchkeeper.contracts.names import CANDIDATE, PREVIOUS, PRODUCTION
from watchkeeper.contracts.policies import RolloutPolicy
from watchkeeper.registry import ROLLOUT_TAG
from watchkeeper.rollout.analysis import judge_step, judge_watch
from watchkeeper.rollout.backward import go_back, take_off
from watchkeeper.rollout.chronicle import event_of
from watchkeeper.rollout.evidence import Judgement
from watchkeeper.rollout.moves import finish_step, go_on, unconfirmed
from watchkeeper.rollout.orders import TO_PROMOTE, carried_out
from watchkeeper.rollout.state import Window
from watchkeeper.rollout.steps import DropAlias, SetAlias, Step, Tag, Wait
from watchkeeper.rollout.world import World

PROMOTED = "promoted"
HELD_SECONDS = 10.0  # so often it is noted that the start waits for something else
STUMBLES = 3  # so often a version may lose its readiness within one rollout
NO_REGISTRY = Wait("the registry does not answer", "registry")


def starting(world: World, policy: RolloutPolicy, now: float) -> Step:
    """The new version is served, and gets traffic once it has answered its own example."""
    state = world.state
    if why := unwanted(world):
        return take_off(world, policy, now, why, Judgement("inconclusive", why))
    if world.failed(state.version):
        return take_off(world, policy, now, f"never ready: {world.condition(state.version)}")
    if not world.ready(state.version):
        since = max(state.started, state.held or 0.0)
        if world.waits(state.version):
            # No fault of the version: its patience begins when the waiting ends.
            if now - since > min(HELD_SECONDS, policy.patience / 2):
                why = f"held: {world.condition(state.version)}"
                return go_on(world, now, why, held=now, reason=why)
            return Wait(world.condition(state.version), "starting")
        if now - since > policy.patience:
            why = f"not ready within {policy.patience:g} s: {world.condition(state.version)}"
            return take_off(world, policy, now, why)
        return Wait(world.condition(state.version), "starting")
    if world.aliases is None:
        return NO_REGISTRY
    if why := _straight(world, policy):
        return _promote(world, policy, now, why, Judgement("inconclusive", why))
    if world.asks.paused:
        return Wait("paused by a person", "paused")
    return _next_step(world, policy, now, Judgement("pass", "it is ready"))


def canary(world: World, policy: RolloutPolicy, now: float) -> Step:
    """The new version has its share; judge it."""
    state = world.state
    if why := unwanted(world):
        return take_off(world, policy, now, why, Judgement("inconclusive", why))
    if stumble := _readiness(world, policy, now):
        return stumble
    if world.aliases is not None and (why := _straight(world, policy)):
        return _promote(world, policy, now, why, Judgement("inconclusive", why))
    if state.since is None:
        return unconfirmed()
    if world.evidence is None:
        return Wait(f"nothing to judge by: {world.blind}", "blind")
    found = judge_step(world.evidence, policy)
    if found.verdict == "fail":
        return take_off(world, policy, now, found.reason, found)
    if not world.confirmed:
        return unconfirmed()
    if found.verdict == "inconclusive":
        if policy.on_no_traffic == "abort" and now - state.since > policy.patience:
            why = f"inconclusive for {policy.patience:g} s: {found.reason}"
            return take_off(world, policy, now, why, found)
        return Wait(f"v{state.version} at {state.step} %: {found.reason}", "judging")
    if world.aliases is None:
        return NO_REGISTRY
    if world.asks.paused:
        return Wait("paused by a person", "paused")
    return _next_step(world, policy, now, found)


def promoting(world: World, policy: RolloutPolicy, now: float) -> Step:
    """The new version has all traffic; make it production in the registry: the commit."""
    state = world.state
    committed = world.alias(PRODUCTION) == state.version
    if not committed and (why := unwanted(world)):
        return take_off(world, policy, now, why, Judgement("inconclusive", why))
    if not committed and state.stable is not None and world.failed(state.version):
        return take_off(world, policy, now, f"no longer ready: {world.condition(state.version)}")
    if not world.confirmed:
        return unconfirmed()
    if world.aliases is None:
        return NO_REGISTRY
    if state.stable is not None and world.alias(PREVIOUS) != state.stable:
        return SetAlias(PREVIOUS, state.stable, f"v{state.version} becomes production")
    if not committed:
        return SetAlias(PRODUCTION, state.new, state.reason)
    told = [event_of(world.model, state, "promoted", now, state.reason, replaces=state.stable)]
    if state.stable is None:
        why = "nothing served before: there is nothing to compare it with, or to go back to"
        told.append(event_of(world.model, state, "watched", now, why, verdict="inconclusive"))
    since = now if state.since is None else state.since
    return go_on(
        world,
        now,
        "committed",
        events=tuple(told),
        phase="watching" if state.stable is not None else "steady",
        production=state.version,
        watch_until=None if state.stable is None else since + policy.watch_seconds,
    )


def watching(world: World, policy: RolloutPolicy, now: float) -> Step:
    """The new version is production; compare it with the window before, the old one warm."""
    state = world.state
    if world.aliases is not None:
        if step := tidy(world):
            return step
        moved = world.alias(PRODUCTION)
        if world.asks.rollback == state.production:
            return go_back(world, now, state.old, "asked for by a person")
        if moved == state.stable:
            return go_back(world, now, state.old, "production was moved back by hand")
        if moved not in (None, state.production):
            return go_on(world, now, f"production was moved by hand to v{moved}", phase="steady")
    if world.failed(state.production) and world.ready(state.stable):
        return go_back(world, now, state.old, world.condition(state.production))
    if state.since is None:
        return unconfirmed()
    if world.evidence is None:
        return Wait(f"nothing to judge by: {world.blind}", "blind")
    found = judge_watch(world.evidence, policy)
    over = now - state.since > policy.watch_seconds + policy.patience
    if found.verdict == "fail":
        return go_back(world, now, state.old, found.reason)
    if found.verdict == "inconclusive" and not over:
        return Wait(f"v{state.version} in production: {found.reason}", "watching")
    told = event_of(
        world.model,
        state,
        "watched",
        now,
        found.reason,
        verdict=found.verdict,
        observations=found.observations,
    )
    return go_on(
        world,
        now,
        f"the watch of v{state.version} is over: {found.reason}",
        events=(told,),
        phase="steady",
        verdict=found.verdict,
        reason=f"promoted and watched: {found.reason}",
    )


def tidy(world: World) -> Step | None:
    """Return what is missing in the registry after a promotion, if anything."""
    production = world.state.production
    if production is None:
        return None
    if production in world.tags and world.tag(production, ROLLOUT_TAG) != PROMOTED:
        return Tag(production, PROMOTED, "it is production")
    if done := carried_out(world, production, TO_PROMOTE):
        return done
    if world.alias(CANDIDATE) == production == world.alias(PRODUCTION):
        return DropAlias(CANDIDATE, f"v{production} is production")
    return None


def unwanted(world: World) -> str:
    """Say why nobody wants the version any more, or nothing.

    The registry says what should serve: when `candidate` moves on or is dropped, the version that
    had it goes off, and the newer one begins on its own.
    """
    state, asks = world.state, world.asks
    if state.stable is None:
        return ""  # there is nothing else to serve
    if asks.abort == state.version:
        return "aborted by a person"
    if world.aliases is None:
        return ""
    production, candidate = world.alias(PRODUCTION), world.alias(CANDIDATE)
    if production not in (None, state.stable, state.version):
        return f"superseded: production was moved by hand to v{production}"
    if asks.rollback == state.stable and world.alias(PREVIOUS) not in (None, state.stable):
        return f"superseded: a person leaves v{state.stable}"
    if state.version in (production, candidate):
        return ""
    return f"superseded by v{candidate}" if candidate else "withdrawn: it is no longer candidate"


def _readiness(world: World, policy: RolloutPolicy, now: float) -> Step | None:
    """Hold while a version with traffic is not ready; its step counts anew when it is again."""
    state = world.state
    condition = world.condition(state.version)
    if world.failed(state.version):
        return take_off(world, policy, now, f"no longer ready: {condition}")
    if not world.ready(state.version):
        if state.unready is None:
            return go_on(world, now, condition, unready=now, stumbles=state.stumbles + 1)
        if now - state.unready > policy.patience:
            return take_off(world, policy, now, f"not ready for {policy.patience:g} s: {condition}")
        return Wait(condition, "unready")
    if state.stumbles > STUMBLES:
        return take_off(world, policy, now, f"lost its readiness {state.stumbles} times")
    if state.unready is not None:
        return go_on(world, now, "ready again: the step begins anew", unready=None, since=None)
    return None


def _straight(world: World, policy: RolloutPolicy) -> str:
    """Say why the version goes to production without being judged, or nothing."""
    state = world.state
    by_hand = world.alias(PRODUCTION) == state.version
    if world.asks.promote == state.version:
        return "promoted by a person, without further judging"
    if by_hand and world.alias(CANDIDATE) == state.version:
        return "it is production in the registry already"
    if by_hand and policy.on_manual_move == "direct":
        return "production was moved by hand"
    return "nothing else serves" if state.stable is None else ""


def _next_step(world: World, policy: RolloutPolicy, now: float, found: Judgement) -> Step:
    state = world.state
    if not world.ready(state.stable):
        return Wait(world.condition(state.stable), "stable")
    percent = next((p for p in policy.steps if p > state.step), None)
    if percent is None:
        done = ", ".join(str(p) for p in (*(s.percent for s in state.steps), state.step) if p)
        why = f"passed {done} %" if done else "the policy has no steps"
        return _promote(world, policy, now, why, found)
    steps, events = finish_step(world, policy, now, found)
    why = f"{state.step} % passed: {found.reason}" if state.step else found.reason
    return go_on(
        world,
        now,
        why,
        weights={state.old: 100 - percent, state.new: percent},
        events=events,
        phase="canary",
        step=percent,
        verdict="",
        reason=f"{percent} % of the traffic, being judged; {why}",
        steps=steps,
    )


def _promote(world: World, policy: RolloutPolicy, now: float, why: str, found: Judgement) -> Step:
    state = world.state
    if not world.ready(state.version):
        return Wait(world.condition(state.version), "starting")
    steps, events = finish_step(world, policy, now, found)
    window = None
    if state.stable is not None:
        judged = state.phase == "canary" and state.since is not None
        since = state.since if judged and state.since else now - policy.watch_seconds
        window = Window(state.stable, since, now)
    return go_on(
        world,
        now,
        why,
        weights={state.new: 100},
        events=events,
        phase="promoting",
        step=100,
        verdict=found.verdict,
        reason=why,
        steps=steps,
        window=window,
        unready=None,
    )
