"""Writing the route: a rollout's next state, its events and the weights, all at once."""

from typing import Any

import msgspec

from watchkeeper.contracts.policies import RolloutPolicy
from watchkeeper.ledger.events import Event
from watchkeeper.platforms import Route
from watchkeeper.rollout.chronicle import step_event
from watchkeeper.rollout.evidence import Judgement
from watchkeeper.rollout.state import Finished, State
from watchkeeper.rollout.steps import SetRoute, Wait
from watchkeeper.rollout.world import World


def go_on(
    world: World,
    now: float,
    why: str,
    *,
    weights: dict[int, int] | None = None,
    events: tuple[Event, ...] = (),
    **changes: Any,
) -> SetRoute:
    """Continue the rollout of the state; new weights count from when they are confirmed."""
    if weights is not None and weights != world.weights:
        changes["since"] = None
    state = msgspec.structs.replace(
        world.state, changed=now, untold=(*_untold(world), *events), **changes
    )
    return SetRoute(Route(weights or world.weights, state.dump()), why)


def begin(
    world: World, now: float, why: str, begun: State, *, events: tuple[Event, ...]
) -> SetRoute:
    """Put the state of a new rollout in the place of the last one's; the weights stay."""
    state = msgspec.structs.replace(
        begun,
        production=world.state.production,
        since=world.state.since,
        started=now,
        changed=now,
        untold=(*_untold(world), *events),
    )
    return SetRoute(Route(world.weights, state.dump()), why)


def finish_step(
    world: World, policy: RolloutPolicy, now: float, found: Judgement
) -> tuple[tuple[Finished, ...], tuple[Event, ...]]:
    """Close the present step, if it had confirmed traffic: all steps now, and the event of it."""
    state = world.state
    if state.phase != "canary" or state.since is None:
        return state.steps, ()
    step = Finished(state.step, state.since, max(now, state.since), found.verdict, found.reason)
    event = step_event(world.model, state, step, found.observations, msgspec.to_builtins(policy))
    return (*state.steps, step), (event,)


def unconfirmed() -> Wait:
    """Wait for the gateway."""
    return Wait("the gateway has not confirmed the weights yet", "gateway")


def _untold(world: World) -> tuple[Event, ...]:
    return () if world.told else world.state.untold
