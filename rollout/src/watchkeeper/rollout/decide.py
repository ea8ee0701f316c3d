"""What to do next: a pure function from the world, the policy and the time to one step."""
# ruff: noqa: PLR0911 - a decision is a list of cases, each with its answer

from watchkeeper.contracts.names import CANDIDATE, PREVIOUS, PRODUCTION
from watchkeeper.contracts.policies import RolloutPolicy
from watchkeeper.platforms import Route
from watchkeeper.registry import GATE_TAG, ROLLOUT_TAG
from watchkeeper.rollout.backward import go_back, going_back
from watchkeeper.rollout.chronicle import ROLLED_BACK, event_of, refusals
from watchkeeper.rollout.forward import (
    NO_REGISTRY,
    canary,
    promoting,
    starting,
    tidy,
    watching,
)
from watchkeeper.rollout.moves import begin, go_on
from watchkeeper.rollout.orders import pointless
from watchkeeper.rollout.state import State
from watchkeeper.rollout.steps import DropAlias, Retire, Serve, SetRoute, Step, Tag, Wait
from watchkeeper.rollout.world import World

REPEAT_SECONDS = 10.0  # weights not confirmed by then are written again


def decide(world: World, policy: RolloutPolicy, now: float) -> Step:
    """Return the one step that is next; ``now`` in seconds since 1970."""
    step = _step(world, policy, now)
    return (_upkeep(world, now) or step) if isinstance(step, Wait) else step


def subject(world: World) -> int | None:
    """The version that the next decision is about, whose policy counts."""
    state = world.state
    if state.phase != "steady":
        return state.version
    moved = world.alias(PRODUCTION)
    return moved if moved not in (None, state.production) else world.alias(CANDIDATE)


def _step(world: World, policy: RolloutPolicy, now: float) -> Step:
    if world.route is None:
        return _first(world, now)
    if world.confirmed and world.state.since is None:
        return go_on(world, now, "the gateway has confirmed the weights", since=now)
    match world.state.phase:
        case "steady":
            return _steady(world, now)
        case "starting":
            return starting(world, policy, now)
        case "canary":
            return canary(world, policy, now)
        case "promoting":
            return promoting(world, policy, now)
        case "watching":
            return watching(world, policy, now)
        case "rolling-back" | "returning":
            return going_back(world, now)


def _first(world: World, now: float) -> Step:
    """Nothing has traffic: serve what the registry names, without a canary."""
    if world.aliases is None:
        return NO_REGISTRY
    production = world.alias(PRODUCTION)
    version = production or world.alias(CANDIDATE)
    if step := pointless(world):
        return step
    if version is None:
        return Wait("the registry has neither production nor candidate", "empty")
    if production is None and (why := _refusal(world, version)):
        return _refuse(world, version, why)
    if world.asks.paused:
        return Wait("paused by a person", "paused")
    if not world.served(version):
        return Serve(version, "nothing else serves")
    if not world.ready(version):
        return Wait(world.condition(version), "starting")
    why = "the registry's production" if production else "the first version"
    state = State(
        phase="promoting",
        version=version,
        started=now,
        changed=now,
        step=100,
        verdict="pass",
        reason=f"{why}: no canary",
        untold=() if world.told else refusals(world.model, world.tags, now),
    )
    return SetRoute(Route({version: 100}, state.dump()), "it has answered its own example")


def _steady(world: World, now: float) -> Step:
    """No rollout is in progress: compare the registry with what was reconciled last."""
    state = world.state
    if world.aliases is None:
        return NO_REGISTRY
    if step := tidy(world) or pointless(world):
        return step
    production, previous = world.alias(PRODUCTION), world.alias(PREVIOUS)
    if production is not None and production != state.production:
        if state.production is None and world.weights == {production: 100}:
            return go_on(world, now, "it serves already", production=production)
        return _start(world, now, production, f"production was moved by hand to v{production}")
    ordered = world.asks.rollback is not None and world.asks.rollback == state.production
    if ordered and previous not in (None, state.production):
        return go_back(world, now, previous, "asked for by a person")
    candidate = world.alias(CANDIDATE)
    newest = max(candidate or 0, state.production or 0)
    if overtaken := _overtaken(world, newest):
        why = f"superseded by v{newest} before its rollout began"
        return _decline(world, now, overtaken, why)
    if candidate is not None and candidate != state.production:
        if why := _refusal(world, candidate):
            return _decline(world, now, candidate, why)
        return _start(world, now, candidate, "it is the candidate")
    return _repair(world, now)


def _overtaken(world: World, newest: int) -> int | None:
    """Return a version that passed its gate, and was overtaken before anything became of it."""
    aliased = set((world.aliases or {}).values())
    return next(
        (
            version
            for version, tags in sorted(world.tags.items())
            if version < newest
            and version not in aliased
            and tags.get(GATE_TAG) == "passed"
            and ROLLOUT_TAG not in tags
        ),
        None,
    )


def _decline(world: World, now: float, version: int, why: str) -> Step:
    """Take a version off before it has been on: nothing of it is served, but it is told."""
    state = State(
        phase="rolling-back",
        version=version,
        stable=world.state.production,
        started=now,
        verdict="fail",
        reason=why,
    )
    told = event_of(world.model, state, "rolled-back", now, why, to=state.stable, percent=0)
    return begin(world, now, why, state, events=(told,))


def _start(world: World, now: float, version: int, why: str) -> Step:
    if world.asks.paused and world.asks.promote != version:
        return Wait("paused by a person", "paused")
    if world.failed(version):
        return Retire(version, "left over from an earlier try; it gets a new start")
    serves = max(world.weights, key=lambda v: (world.weights[v], -v))
    stable = world.state.production or serves  # a state that a person emptied names none
    state = State(
        phase="starting",
        version=version,
        stable=None if stable == version else stable,
        started=now,
        reason=f"being served; {why}",
    )
    told = event_of(world.model, state, "begun", now, why, stable=state.stable)
    return begin(world, now, why, state, events=(told,))


def _repair(world: World, now: float) -> Step:
    """Give all traffic to production again, if somebody has changed the weights by hand."""
    production = world.state.production
    if production is None:
        return Wait("the registry's production is gone, and nothing was reconciled before", "empty")
    if world.weights == {production: 100}:
        return Wait(f"v{production} serves", "steady")
    if not world.ready(production):
        return Wait(world.condition(production), "repair")
    return go_on(world, now, "the weights were not the controller's", weights={production: 100})


def _refusal(world: World, version: int) -> str:
    """Say why a candidate is not even begun, or nothing."""
    if world.asks.abort == version:
        return "aborted by a person"
    if world.tag(version, GATE_TAG) == "rejected" and world.asks.promote != version:
        return "it has not passed its gate"
    if world.route is None and world.failed(version):
        return f"never ready: {world.condition(version)}"
    return ""


def _refuse(world: World, version: int, why: str) -> Step:
    """Take off a version before there is any route: its tag is the memory."""
    text = ROLLED_BACK + why
    if version in world.tags and not world.tag(version, ROLLOUT_TAG).startswith(ROLLED_BACK):
        return Tag(version, text, why)
    return DropAlias(CANDIDATE, why)


def _upkeep(world: World, now: float) -> Step | None:
    """While a decision waits: serve what is needed and as it is wanted, retire what is not, repeat
    what got lost.
    """
    if world.route is None and world.aliases is None:
        return None
    needed = _needed(world)
    for version in sorted(v for v in needed if not world.served(v)):
        return Serve(version, "it is needed and not served")
    if world.route is not None and not world.confirmed:
        if now - world.state.changed > REPEAT_SECONDS:
            return go_on(world, now, "the gateway has not confirmed the weights: written again")
        return _rescale(world, needed)
    for version in sorted(set(world.serving) - needed):
        return Retire(version, "nothing needs it any more")
    return _rescale(world, needed)


def _rescale(world: World, needed: set[int]) -> Step | None:
    """Bring what was changed about the number of servers to a version that is served."""
    for version in sorted(v for v in needed if world.outdated(v)):
        return Serve(version, "its number of servers was changed")
    return None


def _needed(world: World) -> set[int]:
    state = world.state
    if world.route is None:
        wanted = {world.alias(PRODUCTION) or world.alias(CANDIDATE)}
    elif state.phase == "steady":
        ordered = world.asks.rollback is not None and world.asks.rollback == state.production
        wanted = {state.production, world.alias(PREVIOUS) if ordered else None}
    elif state.phase in ("rolling-back", "returning"):
        wanted = {state.stable}
    else:
        wanted = {state.version, state.stable}
    return {version for version in wanted if version is not None} | set(world.weights)
