"""Any process may die at any time, and the rollout still ends in a consistent state."""

import contextlib
import json
import os
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulated import MODEL, POLICY, Simulation, first_version

from watchkeeper.core.events import NumberReused, RouteRepaired, as_json
from watchkeeper.core.policies import override
from watchkeeper.platforms import PlatformError, RolloutCommands, Route
from watchkeeper.registry import DIGEST_TAG, ROLLOUT_TAG, RegistryError
from watchkeeper.rollout.actions import Wait


class Killed(BaseException):
    """The controller's process is killed."""


faults = st.lists(
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
COMMANDS = {
    "pause": RolloutCommands(paused=True),
    "resume": RolloutCommands(),
    "promote 2": RolloutCommands(promote=2),
    "abort 2": RolloutCommands(abort=2),
    "rollback 2": RolloutCommands(rollback=2),
    "rollback 1": RolloutCommands(rollback=1),
}
FOREIGN = 40  # the number of a version that no training run has registered
Change = Callable[[Simulation], object]
BY_HAND: dict[str, Change] = {
    "newer candidate": lambda s: s.registry.register(3),
    "move production to 3": lambda s: s.registry.move_production(3),
    "drop candidate": lambda s: s.registry.alias.pop("candidate", None),
    "weights 50:50": lambda s: s.platform.edit({1: 50, 2: 50}),
    "weights to 2": lambda s: s.platform.edit({2: 100}),
    "weights 25:75": lambda s: s.platform.edit({1: 25, 2: 75}),
    "delete route": lambda s: s.platform.delete_route(),
    "break state": lambda s: s.platform.break_state(),
    "delete servers of 1": lambda s: s.platform.pods.pop(1, None),
    "delete servers of 2": lambda s: s.platform.pods.pop(2, None),
}
DELETIONS: dict[str, Change] = {
    "delete version 1": lambda s: s.registry.delete_version(1),
    "delete version 2": lambda s: s.registry.delete_version(2),
    "delete version 3": lambda s: s.registry.delete_version(3),
    "delete model": lambda s: s.registry.delete_model(),
    "delete alias production": lambda s: s.registry.alias.pop("production", None),
    "delete alias previous": lambda s: s.registry.alias.pop("previous", None),
    "foreign candidate": lambda s: s.registry.add_foreign(FOREIGN, "candidate"),
    "foreign production": lambda s: s.registry.add_foreign(FOREIGN, "production"),
    "train the deleted model again": lambda s: s.train_again(),
    "foreign content under 1 as production": lambda s: s.registry.replace_by_foreign(1),
    **{
        f"other content under {n} as {alias}": lambda s, n=n, alias=alias: s.registry.replace(
            n, f"other content {n}", alias
        )
        for n in (1, 2, 3)
        for alias in ("candidate", "production")
    },
}
CHANGES = {**BY_HAND, **DELETIONS}
commands = st.lists(
    st.tuples(st.integers(0, 120), st.sampled_from([*COMMANDS, *BY_HAND])), max_size=3
)
commands_and_deletions = st.lists(
    st.tuples(st.integers(0, 120), st.sampled_from([*COMMANDS, *CHANGES])), max_size=4
)


class FaultyRun:
    """Plays faults and commands into a simulation, and checks every turn."""

    def __init__(self, simulation: Simulation, faults_: Any, commands_: Any) -> None:
        self.simulation = simulation
        self.faults = faults_
        self.standing = commands_
        self.had_route = True  # before this turn
        self.judged = {simulation.platform.digests[v] for v in simulation.weights}

    def play(self) -> None:
        for turn in range(140):
            self._give([command for at, command in self.standing if at == turn])
            now = {name for at, name, lasts in self.faults if at <= turn < at + lasts}
            self._turn(now, {name for at, name, _ in self.faults if at == turn})
        simulation = self.simulation
        simulation.registry.up = simulation.platform.up = simulation.ledger_up = True
        if simulation.platform.standing_commands.paused:
            simulation.platform.standing_commands = RolloutCommands()
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
        self.had_route = platform.written is not None
        before = self._snapshot()
        if "killed before" in new:
            try:
                simulation.turn(fail=_kill)
            except Killed:
                assert self._snapshot() == before
            return
        simulation.turn()  # "killed after" loses nothing: a simulation has no memory
        assert self._changes(before) <= 1
        self.check_contents()

    def check_contents(self) -> None:
        """Check that traffic beyond the canary steps goes to content that was judged."""
        simulation = self.simulation
        state, served = simulation.state, simulation.platform.digests
        if simulation.weights != state.weights:
            return  # a person has changed them, and this turn could not restore them
        for version, percent in simulation.weights.items():
            assert served[version] == state.digests.get(version, served[version])
            if state.phase == "canary" and percent == POLICY.steps[-1] == state.canary_percent:
                self.judged.add(served[version])
            if state.phase == "promoting" and state.verdict == "inconclusive":
                self.judged.add(served[version])  # a person has chosen it
            if state.phase == "promoting" and state.stable is None and not self.had_route:
                self.judged.add(served[version])  # nothing served before, or the route was deleted
            assert percent < 100 or served[version] in self.judged

    def _give(self, commands_: list[str]) -> None:
        for command in commands_:
            if command in CHANGES:
                CHANGES[command](self.simulation)
            else:
                self.simulation.platform.standing_commands = COMMANDS[command]

    def _snapshot(self) -> tuple[Any, ...]:
        simulation = self.simulation
        tags = {v: dict(tags) for v, tags in simulation.registry.tags.items()}
        return (
            simulation.platform.written,
            tags,
            dict(simulation.registry.alias),
            set(simulation.platform.pods),
        )

    def _changes(self, before: tuple[Any, ...]) -> int:
        route, tags, aliases, pods = self._snapshot()
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
    faults_=faults,
    commands_=commands,
    manual=st.sampled_from(["direct", "canary"]),
    confirm=st.integers(0, 3),
)
def test_every_rollout_ends_in_a_consistent_state(
    quality: str, faults_: Any, commands_: Any, manual: str, confirm: int
) -> None:
    simulation = first_version(
        policy=override(POLICY, {"on_manual_move": manual}), turns_to_confirm=confirm
    )
    simulation.quality[2] = quality
    if quality == "never ready":
        simulation.platform.broken.add(2)
    simulation.registry.register(2)
    FaultyRun(simulation, faults_, commands_).play()

    registry, platform = simulation.registry, simulation.platform
    production = registry.alias["production"]
    assert simulation.weights == {production: 100}
    assert simulation.state.production == production
    assert set(platform.pods) == {production}
    assert platform.confirmed(MODEL)
    assert platform.standing_commands == RolloutCommands(), "no command may act on a later rollout"
    assert "candidate" not in registry.alias
    assert registry.tags[production][ROLLOUT_TAG] == "promoted"
    promoted = [v for kind, v in simulation.kinds() if kind == "promoted"]
    assert promoted[-1] == production
    if not commands_:
        lost_readiness = any(name == "canary dies" for _, name, _ in faults_)
        bad = quality != "good"
        assert (production == 1) == bad or (lost_readiness and production == 1)
        assert registry.alias == (
            {"production": 1} if production == 1 else {"production": 2, "previous": 1}
        )


@settings(
    max_examples=int(os.environ.get("WATCHKEEPER_TEST_EXAMPLES", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    quality=st.sampled_from(["good", "slow", "failing", "bad-in-production", "never ready"]),
    faults_=faults,
    commands_=commands_and_deletions,
    manual=st.sampled_from(["direct", "canary"]),
)
def test_nothing_waits_for_what_was_deleted_in_the_registry(
    quality: str, faults_: Any, commands_: Any, manual: str
) -> None:
    simulation = first_version(policy=override(POLICY, {"on_manual_move": manual}))
    simulation.quality[2] = quality
    if quality == "never ready":
        simulation.platform.broken.add(2)
    simulation.registry.register(2)
    FaultyRun(simulation, faults_, commands_).play()

    registry, platform, state = simulation.registry, simulation.platform, simulation.state
    assert state.production is not None
    assert state.production != FOREIGN, "a version without a manifest must not serve"
    assert simulation.weights == {state.production: 100}, "what serves keeps serving"
    assert set(platform.pods) == {state.production}
    assert platform.standing_commands == RolloutCommands(), "no command may act on a later rollout"
    assert "candidate" not in registry.alias
    assert registry.alias.get("production") in (None, state.production)
    if "production" in registry.alias:
        registered = registry.tags[state.production][DIGEST_TAG]
        assert registered == platform.digests[state.production], "it is the content that serves"
    assert ("production" in registry.alias) == (state.unregistered_since is None)
    reports = [kind for kind, _ in simulation.kinds() if kind.startswith("production-")]
    if state.unregistered_since is not None:
        assert reports[-1] == "production-unregistered"


@settings(max_examples=100, deadline=None)
@given(
    quality=st.sampled_from(["good", "slow", "bad-in-production"]),
    applied=st.lists(st.booleans(), max_size=60),
)
def test_a_call_may_fail_after_it_took_effect(quality: str, applied: list[bool]) -> None:
    simulation = first_version()
    simulation.quality[2] = quality
    simulation.registry.register(2)
    answers = iter(applied)
    for name in ("set_route", "serve", "retire"):
        _lose_answers(simulation.platform, name, answers, PlatformError)
    for name in ("set_alias", "delete_alias", "set_tag"):
        _lose_answers(simulation.registry, name, answers, RegistryError)
    simulation.settle()
    good = quality == "good"
    assert simulation.registry.alias == (
        {"production": 2, "previous": 1} if good else {"production": 1}
    )
    kinds = simulation.kinds()
    assert kinds.count(("begun", 2)) == 1
    assert kinds.count(("promoted", 2)) == (quality != "slow")


@settings(max_examples=50, deadline=None)
@given(
    applied=st.lists(st.booleans(), max_size=20),
    killed=st.lists(st.booleans(), max_size=20),
    alias=st.sampled_from(["candidate", "production"]),
    quality=st.sampled_from(["good", "slow"]),
)
def test_content_under_a_used_number_gets_one_new_number_and_is_judged(
    applied: list[bool], killed: list[bool], alias: str, quality: str
) -> None:
    simulation = first_version(policy=override(POLICY, {"on_manual_move": "canary"}))
    simulation.registry.delete_model()
    simulation.registry.register(1, content="other content")
    simulation.registry.alias = {alias: 1}
    simulation.quality[2] = quality
    answers, kills = iter(applied), iter(killed)
    for name in ("set_alias", "register_again"):
        _lose_answers(simulation.registry, name, answers, RegistryError)
    run_ = FaultyRun(simulation, [], [])
    for _ in range(120):
        with contextlib.suppress(Killed):
            simulation.turn(_kill if next(kills, False) else lambda: None)
        run_.check_contents()
    simulation.settle()
    assert set(simulation.registry.tags) == {1, 2}
    serves = 2 if quality == "good" else 1
    assert simulation.weights == {serves: 100}
    assert simulation.registry.alias == ({"production": 2} if quality == "good" else {})
    (reused,) = [e for e in simulation.events.values() if isinstance(e.details, NumberReused)]
    assert reused.version == 2
    assert reused.details == NumberReused(
        reused=1, digest="content 1", other_digest="other content"
    )
    assert simulation.kinds().count(("begun", 2)) == 1


def _lose_answers(target: Any, name: str, answers: Any, error: type[Exception]) -> None:
    call = getattr(target, name)

    def without_answer(*arguments: Any) -> None:
        call(*arguments)
        if next(answers, False):
            raise error("it took effect, but the answer was lost")

    setattr(target, name, without_answer)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("since", "yesterday"),
        ("phase", "elsewhere"),
        ("canary_percent", "10 %"),
        ("step_results", "[1]"),
        ("baseline", "{"),
        ("canary_percent", "0"),
        ("canary_percent", "100"),
        ("canary_percent", "150"),
        ("pending_events", "{"),
        ("pending_events", "[{}]"),
    ],
)
def test_an_invalid_state_is_written_again_and_the_event_names_the_field(
    field: str, text: str
) -> None:
    simulation = first_version()
    simulation.registry.register(2)
    simulation.run(lambda s: s.state.canary_percent == 25)
    route = simulation.platform.written
    assert route is not None
    broken = Route(route.weights, {**route.state, field: text}, {"state": "kubectl-edit at noon"})
    simulation.platform.written = broken
    simulation.turn()
    assert simulation.weights == {1: 100}
    simulation.settle()
    assert simulation.weights == {2: 100}, "the rollout has started again"
    (repaired,) = [e for e in simulation.events.values() if isinstance(e.details, RouteRepaired)]
    assert repaired.details == RouteRepaired(part="state", changed_by="kubectl-edit at noon")
    assert re.search(rf"state: {field}='?{re.escape(text)}'?: ", repaired.reason)
    assert "kubectl-edit" in repaired.reason


def test_a_broken_state_never_gives_traffic_to_a_version_that_was_not_judged() -> None:
    simulation = first_version(policy=override(POLICY, {"on_manual_move": "canary"}))
    simulation.quality[3] = "failing"
    simulation.registry.move_production(3)
    simulation.platform.break_state()  # before version 3 is served
    simulation.run(lambda s: s.weights == {1: 90, 3: 10})
    simulation.platform.break_state()
    simulation.turn()
    assert simulation.weights == {1: 100}
    simulation.settle()
    assert simulation.weights == {1: 100}
    assert ("promoted", 3) not in simulation.kinds()
    assert simulation.kinds().count(("promoted", 1)) == 1


@pytest.mark.parametrize("registry_up", [True, False])
def test_a_broken_state_keeps_a_rollback(registry_up: bool) -> None:
    simulation = first_version()
    simulation.registry.register(2)
    simulation.quality[2] = "bad-in-production"
    simulation.run(lambda s: s.state.phase == "returning")
    simulation.registry.up = registry_up
    simulation.platform.break_state()
    for _ in range(40):
        simulation.turn()
        assert simulation.weights == {1: 100}
    simulation.registry.up = True
    simulation.settle()
    assert simulation.weights == {1: 100}
    assert simulation.registry.alias["production"] == 1


def test_a_pause_does_not_keep_a_failing_canary_when_the_state_is_broken() -> None:
    simulation = first_version()
    simulation.registry.register(2)
    simulation.run(lambda s: s.state.canary_percent == 25)
    simulation.platform.standing_commands = RolloutCommands(paused=True)
    simulation.platform.break_state()
    simulation.turn()
    assert simulation.weights == {1: 100}


def test_changes_that_another_tool_repeats_are_reported_once_in_ten_minutes() -> None:
    simulation = first_version()
    simulation.registry.register(2)
    simulation.run(lambda s: s.state.canary_percent == 25)
    simulation.ledger_up = False
    for _ in range(200):
        simulation.platform.edit({1: 100})
        simulation.turn()
    assert len(simulation.state.pending_events) < 5
    simulation.ledger_up = True
    simulation.turn()
    repaired = [e for e in simulation.events.values() if isinstance(e.details, RouteRepaired)]
    assert len(repaired) == 1


def test_a_rollout_continues_with_pending_events_of_a_later_release() -> None:
    simulation = first_version()
    simulation.registry.register(2)
    simulation.ledger_up = False
    simulation.run(lambda s: s.state.phase == "canary")
    route = simulation.platform.written
    assert route is not None
    unknown = {
        "id": f"{MODEL}/v2/paused",
        "model": MODEL,
        "version": 2,
        "kind": "paused",
        "time": simulation.now,
        "reason": "rain",
        "details": {"format": 2, "by": "somebody"},
    }
    begun, *others = json.loads(route.state["pending_events"])
    begun["details"] |= {"stable": "v1"}
    pending = json.dumps([begun, *others, unknown])
    simulation.platform.written = Route(route.weights, {**route.state, "pending_events": pending})
    simulation.turn()
    route = simulation.platform.written
    assert json.loads(route.state["pending_events"]) == [begun, *others, unknown]
    simulation.ledger_up = True
    simulation.settle()
    assert simulation.state.production == 2
    assert as_json(simulation.events[unknown["id"]]) == unknown
    assert as_json(simulation.events[begun["id"]]) == begun


def test_a_route_without_any_state_is_adopted() -> None:
    simulation = first_version()
    simulation.platform.written = Route({1: 100}, {})
    simulation.settle()
    assert simulation.state.production == 1
    assert isinstance(simulation.actions[-1], Wait)
