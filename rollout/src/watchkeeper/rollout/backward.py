"""The ways back: taking a version off, and returning from production to the previous one."""

import msgspec

from watchkeeper.contracts.names import CANDIDATE, PREVIOUS, PRODUCTION
from watchkeeper.contracts.policies import RolloutPolicy
from watchkeeper.registry import ROLLOUT_TAG
from watchkeeper.rollout.chronicle import ROLLED_BACK, event_of, promoted_again
from watchkeeper.rollout.evidence import Judgement
from watchkeeper.rollout.moves import finish_step, go_on, unconfirmed
from watchkeeper.rollout.orders import ALL, carried_out
from watchkeeper.rollout.state import State
from watchkeeper.rollout.steps import DropAlias, Retire, Serve, SetAlias, Step, Tag, Wait
from watchkeeper.rollout.world import World

LONGEST_TAG = 1000  # MLflow's tags are limited


def take_off(
    world: World, policy: RolloutPolicy, now: float, why: str, found: Judgement | None = None
) -> Step:
    """Begin to take the version off: the weights first, everything else after."""
    state = world.state
    if state.stable is None:
        return Wait(f"v{state.version} must go ({why}), but nothing else serves", "back")
    found = found or Judgement("fail", why)
    weights = {state.old: 100}
    if weights != world.weights and not world.ready(state.stable):
        return Wait(
            f"v{state.version} must go ({why}), but {world.condition(state.stable)}", "back"
        )
    steps, events = finish_step(world, policy, now, found)
    told = event_of(
        world.model, state, "rolled-back", now, why, to=state.stable, percent=state.step
    )
    return go_on(
        world,
        now,
        why,
        weights=weights,
        events=(*events, told),
        phase="rolling-back",
        step=0,
        verdict=found.verdict,
        reason=why,
        steps=steps,
        unready=None,
    )


def go_back(world: World, now: float, target: int, why: str) -> Step:
    """Leave production for ``target``, which is made ready first where it is not."""
    state = world.state
    leaving = state.production
    if state.phase == "steady":
        if world.failed(target):
            return Retire(target, "left over from an earlier try; it gets a new start")
        state = State(production=leaving, version=leaving, stable=target, started=now)
    if not world.served(target):
        return Serve(target, why)
    if not world.ready(target):
        return Wait(f"v{leaving} must go ({why}), but {world.condition(target)}", "back")
    told = event_of(world.model, state, "rolled-back", now, why, to=target, percent=100)
    state = msgspec.structs.replace(state, untold=world.state.untold)
    return go_on(
        msgspec.structs.replace(world, state=state),
        now,
        why,
        weights={target: 100},
        events=(told,),
        phase="returning",
        step=0,
        verdict="fail",
        reason=why,
    )


def going_back(world: World, now: float) -> Step:
    """Stable has the traffic again; settle in the registry that it is production, and tell so
    where it was not any more.
    """
    state = world.state
    if not world.confirmed:
        return unconfirmed()
    if world.aliases is None:
        return Wait("the registry does not answer", "registry")
    if step := _forget(world):
        return step
    again = (promoted_again(world.model, state, now),) if state.phase == "returning" else ()
    return go_on(
        world,
        now,
        f"v{state.version} is off",
        events=again,
        phase="steady",
        production=state.stable,
    )


def _forget(world: World) -> Step | None:
    """Return the next change that is missing in the registry after a way back, if any."""
    state = world.state
    why = f"v{state.version} is taken off: {state.reason}"
    if state.stable is not None and world.alias(PRODUCTION) in (None, state.version):
        return SetAlias(PRODUCTION, state.old, why)
    if world.alias(PREVIOUS) == state.stable:
        return DropAlias(PREVIOUS, "it is production itself")
    text = (ROLLED_BACK + state.reason)[:LONGEST_TAG]
    if state.version in world.tags and world.tag(state.version, ROLLOUT_TAG) != text:
        return Tag(state.new, text, why)
    if done := carried_out(world, state.version, ALL):
        return done  # while the phase is one that takes no orders
    if world.alias(CANDIDATE) == state.version:
        return DropAlias(CANDIDATE, why)
    return None
