"""Whole rollouts in a simulation: the changes, their order, and the final state."""

from itertools import pairwise

import msgspec
import pytest
from simulated import POLICY, Simulation, first_version

from watchkeeper.core.events import RolledBack, RouteRepaired, StepFinished
from watchkeeper.core.policies import RolloutPolicy, override
from watchkeeper.platforms import SHOWN_STATE, PlatformError, RolloutCommands, Route
from watchkeeper.registry import ROLLOUT_TAG
from watchkeeper.rollout.actions import DeleteAlias, Retire, Serve, SetAlias, SetRoute, SetTag, Wait


def changes(simulation: Simulation) -> list[str]:
    """Return the changes in order, without those that only write the state of the route."""
    found: list[str] = []
    weights = simulation.weights_before
    for action in simulation.actions:
        match action:
            case SetRoute(route=route) if route.weights != weights:
                weights = route.weights
                found.append(" ".join(f"v{v}:{w}" for v, w in sorted(weights.items())))
            case Serve(version=v):
                found.append(f"serve v{v}")
            case Retire(version=v):
                found.append(f"retire v{v}")
            case SetAlias(alias=alias, version=v):
                found.append(f"{alias}=v{v}")
            case DeleteAlias(alias=alias):
                found.append(f"drop {alias}")
            case SetTag(version=v, text=text):
                found.append(f"tag v{v} {text.partition(':')[0]}")
    return found


def second_version(
    quality: str = "good", policy: RolloutPolicy = POLICY, **platform: int
) -> Simulation:
    simulation = first_version(policy=policy, **platform)
    simulation.forget()
    simulation.quality[2] = quality
    simulation.registry.register(2)
    return simulation


def test_the_first_version_takes_all_traffic_once_it_is_ready_without_a_canary() -> None:
    simulation = Simulation()
    simulation.registry.register(1)
    simulation.settle()
    assert changes(simulation) == [
        "serve v1",
        "v1:100",
        "production=v1",
        "tag v1 promoted",
        "drop candidate",
    ]
    # Each rollout ends by an event; there was nothing to watch this one against.
    assert simulation.kinds() == [("promoted", 1), ("watched", 1)]


def test_a_first_version_that_is_never_ready_is_rejected_with_the_reason() -> None:
    simulation = Simulation()
    simulation.platform.broken.add(1)
    simulation.registry.register(1)
    for _ in range(20):
        simulation.turn()
    assert changes(simulation) == ["serve v1", "tag v1 rolled-back", "drop candidate", "retire v1"]
    assert "example" in simulation.registry.tags[1][ROLLOUT_TAG]


def test_a_good_version_passes_every_step_and_is_promoted_in_order() -> None:
    simulation = second_version()
    simulation.settle()
    assert changes(simulation) == [
        "serve v2",
        "v1:90 v2:10",
        "v1:75 v2:25",
        "v1:50 v2:50",
        "v2:100",
        "previous=v1",
        "production=v2",
        "tag v2 promoted",
        "drop candidate",
        "retire v1",
    ]
    assert simulation.registry.alias == {"production": 2, "previous": 1}
    assert simulation.kinds()[2:] == [
        ("begun", 2),
        ("step", 2),
        ("step", 2),
        ("step", 2),
        ("promoted", 2),
        ("watched", 2),
    ]


def test_steps_do_not_overlap() -> None:
    simulation = second_version()
    simulation.settle()
    steps = [e.details for e in simulation.events.values() if isinstance(e.details, StepFinished)]
    assert [s.percent for s in steps] == [10, 25, 50]
    for one, next_ in pairwise(steps):
        assert one.since + POLICY.step_seconds <= one.until < next_.since
    assert all(s.verdict == "pass" and s.policy["steps"] == [10, 25, 50] for s in steps)


def test_a_slow_version_fails_its_first_step_and_the_weights_change_first() -> None:
    simulation = second_version("slow")
    simulation.settle()
    assert changes(simulation) == [
        "serve v2",
        "v1:90 v2:10",
        "v1:100",
        "tag v2 rolled-back",
        "drop candidate",
        "retire v2",
    ]
    assert "latency" in simulation.registry.tags[2][ROLLOUT_TAG]
    assert simulation.registry.alias == {"production": 1}
    step = next(e for e in simulation.events.values() if e.kind == "step")
    assert (step.details.percent, step.details.verdict) == (10, "fail")
    back = next(e for e in simulation.events.values() if e.kind == "rolled-back")
    assert (back.version, back.details) == (2, RolledBack(to=1, percent=10))


def test_a_version_that_is_bad_in_production_is_replaced_by_the_previous_one() -> None:
    simulation = second_version("bad-in-production")
    simulation.settle()
    assert simulation.weights == {1: 100}
    assert simulation.registry.alias == {"production": 1}
    assert "retire v1" not in changes(simulation)
    assert simulation.registry.tags[2][ROLLOUT_TAG].startswith("rolled-back: ")
    assert simulation.kinds()[-3:] == [("promoted", 2), ("rolled-back", 2), ("promoted", 1)]


def test_without_traffic_a_step_waits_or_aborts_as_the_policy_says() -> None:
    for choice, weights in (("extend", {1: 90, 2: 10}), ("abort", {1: 100})):
        simulation = second_version(policy=override(POLICY, {"on_no_traffic": choice}))
        simulation.traffic = False
        for _ in range(300):
            simulation.turn()
        assert simulation.weights == weights


def test_a_paused_rollout_keeps_its_step_but_takes_a_bad_version_off() -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.canary_percent == 10)
    simulation.platform.standing_commands = RolloutCommands(paused=True)
    for _ in range(100):
        simulation.turn()
    assert simulation.weights == {1: 90, 2: 10}
    simulation.quality[2] = "failing"
    simulation.settle()
    assert simulation.weights == {1: 100}
    assert "errors" in simulation.registry.tags[2][ROLLOUT_TAG]


def test_a_promote_command_skips_the_remaining_steps() -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.canary_percent == 10 and s.state.since)
    simulation.platform.standing_commands = RolloutCommands(promote=2)
    simulation.turn()
    assert simulation.weights == {2: 100}
    simulation.settle()
    assert simulation.registry.alias == {"production": 2, "previous": 1}
    step = next(e for e in simulation.events.values() if e.kind == "step")
    assert step.details.verdict == "inconclusive"


@pytest.mark.parametrize("phase", ["steady", "starting", "canary", "promoting"])
def test_an_abort_takes_the_candidate_off_in_any_phase(phase: str) -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.phase == phase)
    simulation.platform.standing_commands = RolloutCommands(abort=2)
    simulation.settle()
    assert simulation.weights == {1: 100}
    assert simulation.registry.alias == {"production": 1}
    assert simulation.registry.tags[2][ROLLOUT_TAG] == "rolled-back: aborted by a person"
    assert 2 not in simulation.platform.pods


@pytest.mark.parametrize("watched", [False, True])
def test_a_rollback_command_returns_to_previous_also_if_it_must_be_served_again(
    watched: bool,
) -> None:
    simulation = second_version()
    if watched:
        simulation.settle()
        assert 1 not in simulation.platform.pods
    else:
        simulation.run(lambda s: s.state.phase == "watching")
    simulation.platform.standing_commands = RolloutCommands(rollback=2)
    simulation.settle()
    assert simulation.weights == {1: 100}
    assert simulation.registry.alias == {"production": 1}
    assert 2 not in simulation.platform.pods
    assert simulation.kinds()[-2:] == [("rolled-back", 2), ("promoted", 1)]
    assert len({e.id for e in simulation.events.values()}) == len(simulation.events)


def test_a_newer_candidate_supersedes_a_canary() -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.canary_percent == 25)
    simulation.registry.register(3)
    simulation.settle()
    assert simulation.registry.tags[2][ROLLOUT_TAG] == "rolled-back: superseded by v3"
    assert simulation.registry.alias == {"production": 3, "previous": 1}


def test_a_candidate_waits_for_the_end_of_a_watch() -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.phase == "watching")
    simulation.registry.register(3)
    simulation.settle()
    assert simulation.registry.alias == {"production": 3, "previous": 2}
    kinds = simulation.kinds()
    assert kinds.index(("watched", 2)) < kinds.index(("begun", 3))


def test_a_candidate_that_failed_its_gate_is_not_served() -> None:
    simulation = first_version()
    simulation.registry.register(2, gate="rejected")
    simulation.registry.alias["candidate"] = 2
    simulation.settle()
    assert "serve v2" not in changes(simulation)
    assert simulation.registry.alias == {"production": 1}


def test_production_moved_by_hand_takes_the_way_that_the_policy_says() -> None:
    for choice, first in (("direct", "v2:100"), ("canary", "v1:90 v2:10")):
        simulation = first_version(policy=override(POLICY, {"on_manual_move": choice}))
        simulation.forget()
        simulation.registry.tags[2] = {}
        simulation.registry.alias["production"] = 2
        simulation.settle()
        assert changes(simulation)[:2] == ["serve v2", first]
        assert simulation.registry.alias == {"production": 2, "previous": 1}


def test_a_bad_version_that_was_moved_by_hand_is_rolled_back() -> None:
    simulation = first_version(policy=override(POLICY, {"on_manual_move": "canary"}))
    simulation.quality[2] = "slow"
    simulation.registry.tags[2] = {}
    simulation.registry.alias["production"] = 2
    simulation.settle()
    assert simulation.registry.alias == {"production": 1}
    assert simulation.weights == {1: 100}


def test_a_canary_that_loses_its_readiness_starts_its_step_again_three_times() -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.canary_percent == 10 and s.state.since)
    simulation.platform.crash(2)
    since = simulation.state.since
    simulation.run(lambda s: s.state.readiness_losses == 1 and s.state.since not in (None, since))
    for losses in (2, 3, 4):
        simulation.platform.crash(2)
        simulation.run(lambda s, n=losses: s.state.readiness_losses == n)  # type: ignore[misc]
        simulation.run(lambda s: s.state.unready_since is None)
    simulation.settle()
    assert "readiness 4 times" in simulation.registry.tags[2][ROLLOUT_TAG]


def test_a_changed_number_of_servers_reaches_every_version() -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.canary_percent == 10 and s.state.since)
    simulation.platform.wanted_servers = 3
    simulation.forget()
    simulation.run(lambda s: s.platform.servers == {1: 3, 2: 3})
    assert [s.version for s in simulation.actions if isinstance(s, Serve)] == [1, 2]
    assert simulation.weights == {1: 90, 2: 10}
    assert simulation.state.readiness_losses == 0
    simulation.settle()
    assert simulation.registry.alias == {"production": 2, "previous": 1}


def test_a_step_waits_for_the_ledger_and_no_event_is_lost() -> None:
    simulation = second_version()
    simulation.ledger_up = False
    for _ in range(100):
        simulation.turn()
    assert simulation.weights == {1: 90, 2: 10}
    simulation.ledger_up = True
    simulation.settle()
    assert [kind for kind, _ in simulation.kinds()][1:] == [
        *("watched", "begun", "step", "step", "step", "promoted", "watched")
    ]


def test_a_draining_version_does_not_delay_another_one() -> None:
    simulation = second_version("slow", turns_to_drain=50)
    simulation.run(lambda s: s.platform.draining)
    simulation.registry.register(3)
    simulation.run(lambda s: s.weights.get(3))
    assert 2 in simulation.platform.draining
    simulation.settle()
    assert simulation.registry.alias == {"production": 3, "previous": 1}
    simulation.run(lambda s: not s.platform.draining)
    assert set(simulation.platform.pods) == {3}


def test_a_draining_version_can_be_served_again() -> None:
    simulation = second_version("slow", turns_to_drain=20)
    simulation.run(lambda s: s.platform.draining)
    simulation.quality[2] = "good"
    simulation.registry.register(2)
    simulation.settle()
    assert simulation.registry.alias == {"production": 2, "previous": 1}


def emptied(serving: int) -> Simulation:
    """Return a simulation in which a person emptied the state and the registry."""
    simulation = first_version()
    simulation.platform.pods = {serving: 0}
    simulation.platform.written = Route({serving: 100})
    simulation.registry.alias = {}
    simulation.registry.register(2)
    simulation.events.clear()
    simulation.forget()
    return simulation


@pytest.mark.parametrize("quality", ["good", "slow"])
def test_without_a_state_a_candidate_replaces_the_version_with_the_traffic(quality: str) -> None:
    simulation = emptied(1)
    simulation.quality[2] = quality
    simulation.settle()
    assert changes(simulation)[:2] == ["serve v2", "v1:90 v2:10"]
    good = quality == "good"
    assert simulation.weights == ({2: 100} if good else {1: 100})
    assert simulation.kinds()[0] == ("begun", 2)
    assert simulation.kinds()[-1] == (("watched", 2) if good else ("rolled-back", 2))


def test_a_candidate_that_already_has_all_traffic_is_promoted() -> None:
    simulation = emptied(2)
    simulation.settle()
    assert simulation.kinds() == [("begun", 2), ("promoted", 2), ("watched", 2)]
    assert simulation.registry.alias == {"production": 2}


def test_a_failed_version_keeps_the_traffic_while_nothing_else_serves() -> None:
    simulation = emptied(2)
    simulation.run(lambda s: s.state.phase == "starting")
    simulation.platform.broken.add(2)
    for _ in range(5):
        step = simulation.turn()
        assert isinstance(step, Wait)
        assert "nothing else serves" in step.reason
    simulation.platform.broken.clear()
    simulation.settle()
    assert simulation.registry.alias == {"production": 2}


def test_events_of_two_rollouts_survive_a_ledger_that_is_down() -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.phase == "watching")
    simulation.ledger_up = False
    simulation.platform.standing_commands = RolloutCommands(rollback=2)
    simulation.settle()
    simulation.registry.register(3)
    simulation.platform.standing_commands = RolloutCommands(promote=3)
    simulation.run(lambda s: s.state.phase == "watching")
    simulation.ledger_up = True
    simulation.settle()
    assert simulation.kinds()[-6:] == [
        ("promoted", 2),
        ("rolled-back", 2),
        ("promoted", 1),
        ("begun", 3),
        ("promoted", 3),
        ("watched", 3),
    ]


def test_a_bad_canary_is_taken_off_while_the_registry_is_down() -> None:
    simulation = second_version("slow")
    simulation.run(lambda s: s.state.canary_percent == 10)
    simulation.registry.up = False
    simulation.run(lambda s: s.weights == {1: 100})
    simulation.registry.up = True
    simulation.settle()
    assert simulation.registry.alias == {"production": 1}


def test_production_is_served_again_after_all_servers_stopped() -> None:
    simulation = second_version()
    simulation.settle()
    simulation.platform.pods.clear()
    simulation.settle()
    assert set(simulation.platform.pods) == {2}


def test_weights_that_were_changed_by_hand_are_restored() -> None:
    simulation = first_version()
    route = simulation.platform.written
    assert route is not None
    simulation.platform.written = Route(
        {1: 60, 2: 40}, route.state, {"weights": "kubectl-patch at noon"}
    )
    simulation.settle()
    assert simulation.weights == {1: 100}
    (repaired,) = [e for e in simulation.events.values() if isinstance(e.details, RouteRepaired)]
    assert repaired.details == RouteRepaired(part="weights", changed_by="kubectl-patch at noon")
    assert "changed to v1 60 %, v2 40 %" in repaired.reason


def test_without_route_and_alias_the_version_that_was_promoted_last_serves() -> None:
    simulation = second_version()
    simulation.registry.alias.pop("production")
    simulation.platform.delete_route()
    simulation.settle()
    assert changes(simulation)[:3] == ["production=v1", "serve v2", "v1:90 v2:10"]
    assert simulation.registry.alias == {"production": 2, "previous": 1}


def test_without_route_what_serves_is_not_stopped_before_another_version_serves() -> None:
    simulation = first_version()
    simulation.registry.register(2)
    simulation.platform.delete_route()
    simulation.registry.replace(2, "other content 2", "production")
    simulation.turn()
    simulation.turn()
    simulation.registry.add_foreign(40, "production")
    simulation.settle()
    assert set(simulation.platform.pods) == {1}
    assert simulation.weights == {1: 100}


def test_without_route_and_registry_the_version_that_was_promoted_last_serves() -> None:
    simulation = first_version()
    simulation.registry.delete_model()
    simulation.platform.delete_route()
    simulation.settle()
    assert simulation.weights == {1: 100}
    assert simulation.state.unregistered_since is not None


def test_without_route_a_production_that_cannot_be_served_is_corrected() -> None:
    simulation = first_version()
    simulation.registry.add_foreign(4, "production")
    simulation.platform.delete_route()
    simulation.settle()
    assert simulation.weights == {1: 100}
    assert simulation.registry.alias == {"production": 1}


def test_a_state_is_stored_as_texts_and_read_back() -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.phase == "watching")
    route = simulation.platform.written
    assert route is not None
    assert all(isinstance(v, str) for v in route.state.values())
    assert route.state["candidate"] == ""
    assert msgspec.to_builtins(simulation.state)["baseline"]["version"] == 1
    assert simulation.state.dump() == route.state


@pytest.mark.parametrize(
    ("quality", "production", "rolled_back"), [("good", "2", ""), ("slow", "1", "2")]
)
def test_the_state_says_which_rollout_has_ended_and_whether_it_was_taken_off(
    quality: str, production: str, rolled_back: str
) -> None:
    def shown() -> list[str]:
        return [simulation.state.dump()[key] for key in SHOWN_STATE]

    simulation = second_version(quality)
    assert shown() == ["steady", "1", "1", ""]
    simulation.run(lambda s: s.state.phase == "canary")
    assert shown() == ["canary", "1", "", ""]
    simulation.settle()
    assert shown() == ["steady", production, "2", rolled_back]


def test_waiting_changes_nothing() -> None:
    simulation = first_version()
    simulation.forget()
    for _ in range(50):
        simulation.turn()
    assert all(isinstance(action, Wait) for action in simulation.actions)


def test_a_version_that_was_superseded_before_its_start_has_an_event() -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.phase == "watching")
    simulation.registry.register(3)
    simulation.registry.register(4)
    simulation.settle()
    assert simulation.registry.alias == {"production": 4, "previous": 2}
    why = "superseded by v4 before its rollout began"
    assert simulation.registry.tags[3][ROLLOUT_TAG] == f"rolled-back: {why}"
    events = [e for e in simulation.events.values() if e.version == 3]
    assert [(e.kind, e.reason, e.details.percent) for e in events] == [("rolled-back", why, 0)]
    assert "serve v3" not in changes(simulation)


def test_a_version_that_failed_its_gate_is_not_reported_as_superseded() -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.phase == "watching")
    simulation.registry.register(3, gate="rejected")
    simulation.registry.register(4)
    simulation.settle()
    assert ROLLOUT_TAG not in simulation.registry.tags[3]
    assert not any(e.version == 3 for e in simulation.events.values())


@pytest.mark.parametrize("command", ["promote", "abort"])
def test_a_command_that_was_carried_out_does_not_act_again(command: str) -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.canary_percent == 10)
    simulation.platform.standing_commands = RolloutCommands(**{command: 2})
    simulation.settle()
    assert simulation.platform.standing_commands == RolloutCommands()
    if command == "promote":
        simulation.platform.standing_commands = RolloutCommands(rollback=2)
        simulation.settle()
    assert simulation.registry.alias == {"production": 1}
    assert simulation.platform.standing_commands == RolloutCommands()
    simulation.forget()
    simulation.registry.alias["candidate"] = 2  # by hand
    simulation.settle()
    assert changes(simulation)[:3] == ["serve v2", "v1:90 v2:10", "v1:75 v2:25"]
    assert simulation.registry.alias == {"production": 2, "previous": 1}, "and no rollback again"


def test_an_abort_of_the_first_candidate_does_not_act_on_its_second_try() -> None:
    simulation = Simulation()
    simulation.registry.register(1)
    simulation.platform.standing_commands = RolloutCommands(abort=1)
    simulation.run(
        lambda s: not s.registry.alias and s.platform.standing_commands == RolloutCommands()
    )
    simulation.registry.alias["candidate"] = 1  # by hand
    simulation.settle()
    assert simulation.registry.alias == {"production": 1}


@pytest.mark.parametrize(
    "stale",
    [
        RolloutCommands(promote=7),
        RolloutCommands(abort=7),
        RolloutCommands(rollback=7),
        RolloutCommands(rollback=1),
    ],
)
def test_a_stale_command_is_withdrawn(stale: RolloutCommands) -> None:
    simulation = first_version()
    simulation.platform.standing_commands = msgspec.structs.replace(stale, paused=True)
    simulation.settle()
    assert simulation.platform.standing_commands == RolloutCommands(paused=True)


def test_a_command_for_a_waiting_candidate_is_kept() -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.phase == "watching")
    simulation.registry.register(3)
    simulation.platform.standing_commands = RolloutCommands(promote=3)
    simulation.run(lambda s: s.state.phase == "starting" and s.state.version == 3)
    assert simulation.platform.standing_commands == RolloutCommands(promote=3)
    simulation.forget()
    simulation.settle()
    assert changes(simulation)[:3] == ["serve v3", "retire v1", "v3:100"]


def test_newer_commands_stay_when_others_are_withdrawn() -> None:
    commands = RolloutCommands(paused=True, promote=3, abort=2)
    assert commands.without({"promote": 2, "abort": 2}) == RolloutCommands(paused=True, promote=3)


def test_patience_does_not_count_while_a_start_is_blocked() -> None:
    simulation = second_version()
    simulation.platform.fetching = True
    simulation.run(lambda s: 2 in s.platform.pods)
    began = simulation.now
    simulation.run(lambda s: s.now > began + 3 * POLICY.patience)
    assert simulation.weights == {1: 100}
    assert simulation.state.reason == "held: v2 is waiting: the registry does not answer"
    written = [action for action in simulation.actions if isinstance(action, SetRoute)]
    assert len(written) < 25, "the state is not written in every turn"
    simulation.platform.fetching = False
    simulation.platform.pods[2] = 100  # 50 s of its patience of 60 s
    simulation.settle()
    assert simulation.registry.alias == {"production": 2, "previous": 1}


def test_patience_begins_when_the_version_is_requested() -> None:
    simulation = second_version()
    serve = simulation.platform.serve

    def refuse(_model: str, version: int, _digest: str) -> None:
        raise PlatformError(f"no room for v{version}")

    simulation.platform.serve = refuse  # type: ignore[method-assign]
    late = simulation.now + 3 * POLICY.patience
    while simulation.now < late:
        simulation.turn()
    assert simulation.state.phase == "starting"
    simulation.platform.serve = serve  # type: ignore[method-assign]
    simulation.settle()
    assert simulation.state.production == 2


def test_a_version_that_is_served_with_other_content_gets_no_traffic() -> None:
    simulation = first_version()
    simulation.registry.register(2)
    simulation.run(lambda s: 2 in s.platform.pods)
    simulation.platform.digests[2] = "other content"
    simulation.settle()
    assert simulation.weights == {1: 100}
    (rolled_back,) = [e for e in simulation.events.values() if e.kind == "rolled-back"]
    assert rolled_back.reason == (
        "never ready: v2 is served with other content: other conten instead of content 2"
    )
