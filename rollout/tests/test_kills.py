"""Whatever dies, and whenever: the world ends in a state that somebody wanted."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulated import MODEL, POLICY, Simulation, first_version

from watchkeeper.contracts.policies import override
from watchkeeper.platforms import Asks, PlatformError, Route
from watchkeeper.registry import ROLLOUT_TAG, RegistryError
from watchkeeper.rollout.state import BrokenStateError
from watchkeeper.rollout.steps import Wait


class Killed(BaseException):
    """The controller's process is gone."""


troubles = st.lists(
    st.tuples(
        st.integers(0, 120),  # the turn
        st.sampled_from(
            [
                *("killed before", "killed after", "registry down", "platform down"),
                *("ledger down", "stable dies", "canary dies"),
            ]
        ),
        st.integers(1, 15),  # turns that it lasts
    ),
    max_size=8,
)
ASKED = {
    "pause": Asks(paused=True),
    "go on": Asks(),
    "promote 2": Asks(promote=2),
    "abort 2": Asks(abort=2),
    "rollback 2": Asks(rollback=2),
    "rollback 1": Asks(rollback=1),
}
BY_HAND = ("newer candidate", "move production to 3", "drop candidate")
orders = st.lists(st.tuples(st.integers(0, 120), st.sampled_from([*ASKED, *BY_HAND])), max_size=3)


class Troubled:
    """Plays troubles and orders into a simulation, and checks every turn of it."""

    def __init__(self, simulation: Simulation, troubles_: Any, orders_: Any) -> None:
        self.simulation = simulation
        self.troubles = troubles_
        self.orders = orders_

    def play(self) -> None:
        for turn in range(140):
            self._order([order for at, order in self.orders if at == turn])
            now = {name for at, name, lasts in self.troubles if at <= turn < at + lasts}
            self._turn(now, {name for at, name, _ in self.troubles if at == turn})
        simulation = self.simulation
        simulation.registry.up = simulation.platform.up = simulation.ledger_up = True
        if simulation.platform.wants.paused:
            simulation.platform.wants = Asks()
        simulation.settle()

    def _turn(self, lasting: set[str], new: set[str]) -> None:
        simulation = self.simulation
        platform, registry = simulation.platform, simulation.registry
        registry.up = "registry down" not in lasting
        platform.up = "platform down" not in lasting
        simulation.ledger_up = "ledger down" not in lasting
        if "stable dies" in new:
            platform.crash(1)
        if "canary dies" in new:
            platform.crash(2)
        before = self._world()
        if "killed before" in new:
            try:
                simulation.turn(fail=_kill)
            except Killed:
                assert self._world() == before
            return
        simulation.turn()  # "killed after" loses nothing: there is no memory to lose
        assert self._changes(before) <= 1

    def _order(self, orders_: list[str]) -> None:
        simulation = self.simulation
        for order in orders_:
            match order:
                case "newer candidate":
                    simulation.registry.register(3)
                case "move production to 3":
                    simulation.registry.tags.setdefault(3, {})
                    simulation.registry.alias["production"] = 3
                case "drop candidate":
                    simulation.registry.alias.pop("candidate", None)
                case asked:
                    simulation.platform.wants = ASKED[asked]

    def _world(self) -> tuple[Any, ...]:
        simulation = self.simulation
        tags = {v: dict(tags) for v, tags in simulation.registry.tags.items()}
        return (
            simulation.platform.written,
            tags,
            dict(simulation.registry.alias),
            set(simulation.platform.pods),
        )

    def _changes(self, before: tuple[Any, ...]) -> int:
        route, tags, aliases, pods = self._world()
        return (
            (route != before[0])
            + (tags != before[1])
            + len(aliases.items() ^ before[2].items()) // 2
            + len(pods ^ before[3])
        )


def _kill() -> None:
    raise Killed


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    quality=st.sampled_from(["good", "slow", "failing", "bad-in-production", "never ready"]),
    troubles_=troubles,
    orders_=orders,
    manual=st.sampled_from(["direct", "canary"]),
    confirm=st.integers(0, 3),
)
def test_every_story_ends_in_a_state_that_agrees_with_itself(
    quality: str, troubles_: Any, orders_: Any, manual: str, confirm: int
) -> None:
    simulation = first_version(
        policy=override(POLICY, {"on_manual_move": manual}), turns_to_confirm=confirm
    )
    simulation.quality[2] = quality
    if quality == "never ready":
        simulation.platform.broken.add(2)
    simulation.registry.register(2)
    Troubled(simulation, troubles_, orders_).play()

    registry, platform = simulation.registry, simulation.platform
    production = registry.alias["production"]
    assert simulation.weights == {production: 100}
    assert simulation.state.production == production
    assert set(platform.pods) == {production}
    assert platform.confirmed(MODEL)
    assert platform.wants == Asks(), "no order is left that could come alive again"
    assert "candidate" not in registry.alias
    assert registry.tags[production][ROLLOUT_TAG] == "promoted"
    promoted = [v for kind, v in simulation.kinds() if kind == "promoted"]
    assert promoted[-1] == production
    if not orders_:
        stumbled = any(name == "canary dies" for _, name, _ in troubles_)
        bad = quality != "good"
        assert (production == 1) == bad or (stumbled and production == 1)
        assert registry.alias == (
            {"production": 1} if production == 1 else {"production": 2, "previous": 1}
        )


@settings(max_examples=100, deadline=None)
@given(
    quality=st.sampled_from(["good", "slow", "bad-in-production"]),
    applied=st.lists(st.booleans(), max_size=60),
)
def test_a_call_that_fails_after_it_took_effect_is_as_good_as_one_that_did_not(
    quality: str, applied: list[bool]
) -> None:
    simulation = first_version()
    simulation.quality[2] = quality
    simulation.registry.register(2)
    answers = iter(applied)
    for name in ("set_route", "serve", "retire"):
        _stammer(simulation.platform, name, answers, PlatformError)
    for name in ("set_alias", "drop_alias", "tag"):
        _stammer(simulation.registry, name, answers, RegistryError)
    simulation.settle()
    good = quality == "good"
    assert simulation.registry.alias == (
        {"production": 2, "previous": 1} if good else {"production": 1}
    )
    kinds = simulation.kinds()
    assert kinds.count(("begun", 2)) == 1
    assert kinds.count(("promoted", 2)) == (quality != "slow")


def _stammer(target: Any, name: str, answers: Any, error: type[Exception]) -> None:
    call = getattr(target, name)

    def stammering(*arguments: Any) -> None:
        call(*arguments)
        if next(answers, False):
            raise error("it took effect, but the answer was lost")

    setattr(target, name, stammering)


def test_an_unknown_phase_or_number_is_an_error_that_names_it() -> None:
    simulation = first_version()
    route = simulation.platform.written
    assert route is not None
    simulation.platform.written = Route(route.weights, {**route.state, "since": "yesterday"})
    with pytest.raises(BrokenStateError, match="since='yesterday'"):
        simulation.turn()


def test_a_route_without_any_state_is_adopted() -> None:
    simulation = first_version()
    simulation.platform.written = Route({1: 100}, {})
    simulation.settle()
    assert simulation.state.production == 1
    assert isinstance(simulation.steps[-1], Wait)
