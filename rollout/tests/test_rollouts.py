"""Whole rollouts in a world in memory: what they end in, and in which order they get there."""

from itertools import pairwise

import msgspec
import pytest
from simulated import POLICY, Simulation, first_version

from watchkeeper.contracts.policies import RolloutPolicy, override
from watchkeeper.platforms import Asks, Route
from watchkeeper.registry import ROLLOUT_TAG
from watchkeeper.rollout.steps import DropAlias, Retire, Serve, SetAlias, SetRoute, Tag, Wait


def said(simulation: Simulation) -> list[str]:
    """Name what was changed, in order, without what only writes state."""
    found: list[str] = []
    weights = simulation.before
    for step in simulation.steps:
        match step:
            case SetRoute(route=route) if route.weights != weights:
                weights = route.weights
                found.append(" ".join(f"v{v}:{w}" for v, w in sorted(weights.items())))
            case Serve(version=v):
                found.append(f"serve v{v}")
            case Retire(version=v):
                found.append(f"retire v{v}")
            case SetAlias(alias=alias, version=v):
                found.append(f"{alias}=v{v}")
            case DropAlias(alias=alias):
                found.append(f"drop {alias}")
            case Tag(version=v, text=text):
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
    assert said(simulation) == [
        "serve v1",
        "v1:100",
        "production=v1",
        "tag v1 promoted",
        "drop candidate",
    ]
    # Each rollout ends by an event; there was nothing to watch this one against.
    assert simulation.kinds() == [("promoted", 1), ("watched", 1)]


def test_a_first_version_that_never_gets_ready_is_taken_off_with_its_reason() -> None:
    simulation = Simulation()
    simulation.platform.broken.add(1)
    simulation.registry.register(1)
    for _ in range(20):
        simulation.turn()
    assert said(simulation) == ["serve v1", "tag v1 rolled-back", "drop candidate", "retire v1"]
    assert "example" in simulation.registry.tags[1][ROLLOUT_TAG]


def test_a_good_version_takes_every_step_and_is_promoted_in_the_stated_order() -> None:
    simulation = second_version()
    simulation.settle()
    assert said(simulation) == [
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


def test_steps_do_not_overlap_and_tell_when_their_weights_held() -> None:
    simulation = second_version()
    simulation.settle()
    steps = [e.details for e in simulation.events.values() if e.kind == "step"]
    assert [s["percent"] for s in steps] == [10, 25, 50]
    for one, next_ in pairwise(steps):
        assert one["since"] + POLICY.step_seconds <= one["until"] < next_["since"]
    assert all(s["verdict"] == "pass" and s["policy"]["steps"] == [10, 25, 50] for s in steps)


def test_a_slow_version_fails_at_its_first_step_and_stable_gets_its_traffic_first() -> None:
    simulation = second_version("slow")
    simulation.settle()
    assert said(simulation) == [
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
    assert (step.details["percent"], step.details["verdict"]) == (10, "fail")
    back = next(e for e in simulation.events.values() if e.kind == "rolled-back")
    assert (back.version, back.details) == (2, {"to": 1, "percent": 10})


def test_a_version_that_turns_bad_in_production_gives_way_to_the_warm_one() -> None:
    simulation = second_version("bad-in-production")
    simulation.settle()
    assert simulation.weights == {1: 100}
    assert simulation.registry.alias == {"production": 1}
    assert "retire v1" not in said(simulation)
    assert simulation.registry.tags[2][ROLLOUT_TAG].startswith("rolled-back: ")
    assert simulation.kinds()[-3:] == [("promoted", 2), ("rolled-back", 2), ("promoted", 1)]


def test_without_traffic_a_step_holds_and_the_user_says_what_then() -> None:
    for choice, weights in (("extend", {1: 90, 2: 10}), ("abort", {1: 100})):
        simulation = second_version(policy=override(POLICY, {"on_no_traffic": choice}))
        simulation.traffic = False
        for _ in range(300):
            simulation.turn()
        assert simulation.weights == weights


def test_a_paused_rollout_holds_its_step_but_still_takes_a_bad_version_off() -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.step == 10)
    simulation.platform.wants = Asks(paused=True)
    for _ in range(100):
        simulation.turn()
    assert simulation.weights == {1: 90, 2: 10}
    simulation.quality[2] = "failing"
    simulation.settle()
    assert simulation.weights == {1: 100}
    assert "errors" in simulation.registry.tags[2][ROLLOUT_TAG]


def test_an_asked_promotion_skips_the_judging_that_is_left() -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.step == 10 and s.state.since)
    simulation.platform.wants = Asks(promote=2)
    simulation.turn()
    assert simulation.weights == {2: 100}
    simulation.settle()
    assert simulation.registry.alias == {"production": 2, "previous": 1}
    step = next(e for e in simulation.events.values() if e.kind == "step")
    assert step.details["verdict"] == "inconclusive"


@pytest.mark.parametrize("phase", ["steady", "starting", "canary", "promoting"])
def test_an_abort_takes_the_candidate_off_wherever_it_stands(phase: str) -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.phase == phase)
    simulation.platform.wants = Asks(abort=2)
    simulation.settle()
    assert simulation.weights == {1: 100}
    assert simulation.registry.alias == {"production": 1}
    assert simulation.registry.tags[2][ROLLOUT_TAG] == "rolled-back: aborted by a person"
    assert 2 not in simulation.platform.pods


@pytest.mark.parametrize("watched", [False, True])
def test_an_asked_rollback_returns_to_previous_even_when_that_must_be_served_again(
    watched: bool,
) -> None:
    simulation = second_version()
    if watched:
        simulation.settle()
        assert 1 not in simulation.platform.pods
    else:
        simulation.run(lambda s: s.state.phase == "watching")
    simulation.platform.wants = Asks(rollback=2)
    simulation.settle()
    assert simulation.weights == {1: 100}
    assert simulation.registry.alias == {"production": 1}
    assert 2 not in simulation.platform.pods
    assert simulation.kinds()[-2:] == [("rolled-back", 2), ("promoted", 1)]
    assert len({e.id for e in simulation.events.values()}) == len(simulation.events)


def test_a_newer_candidate_supersedes_one_that_is_being_judged() -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.step == 25)
    simulation.registry.register(3)
    simulation.settle()
    assert simulation.registry.tags[2][ROLLOUT_TAG] == "rolled-back: superseded by v3"
    assert simulation.registry.alias == {"production": 3, "previous": 1}


def test_a_candidate_waits_for_the_watch_of_the_one_before() -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.phase == "watching")
    simulation.registry.register(3)
    simulation.settle()
    assert simulation.registry.alias == {"production": 3, "previous": 2}
    kinds = simulation.kinds()
    assert kinds.index(("watched", 2)) < kinds.index(("begun", 3))


def test_a_candidate_that_failed_its_gate_is_not_even_served() -> None:
    simulation = first_version()
    simulation.registry.register(2, gate="rejected")
    simulation.registry.alias["candidate"] = 2
    simulation.settle()
    assert "serve v2" not in said(simulation)
    assert simulation.registry.alias == {"production": 1}


def test_production_moved_by_hand_goes_straight_or_by_steps_as_the_policy_says() -> None:
    for choice, first in (("direct", "v2:100"), ("canary", "v1:90 v2:10")):
        simulation = first_version(policy=override(POLICY, {"on_manual_move": choice}))
        simulation.forget()
        simulation.registry.tags[2] = {}
        simulation.registry.alias["production"] = 2
        simulation.settle()
        assert said(simulation)[:2] == ["serve v2", first]
        assert simulation.registry.alias == {"production": 2, "previous": 1}


def test_a_bad_version_that_was_moved_by_hand_gives_production_back() -> None:
    simulation = first_version(policy=override(POLICY, {"on_manual_move": "canary"}))
    simulation.quality[2] = "slow"
    simulation.registry.tags[2] = {}
    simulation.registry.alias["production"] = 2
    simulation.settle()
    assert simulation.registry.alias == {"production": 1}
    assert simulation.weights == {1: 100}


def test_a_canary_that_dies_once_begins_its_step_anew_and_one_that_keeps_dying_goes() -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.step == 10 and s.state.since)
    simulation.platform.crash(2)
    since = simulation.state.since
    simulation.run(lambda s: s.state.stumbles == 1 and s.state.since not in (None, since))
    for stumbles in (2, 3, 4):
        simulation.platform.crash(2)
        simulation.run(lambda s, n=stumbles: s.state.stumbles == n)  # type: ignore[misc]
        simulation.run(lambda s: s.state.unready is None)
    simulation.settle()
    assert "readiness 4 times" in simulation.registry.tags[2][ROLLOUT_TAG]


def test_a_changed_number_of_servers_reaches_every_version_and_disturbs_no_rollout() -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.step == 10 and s.state.since)
    simulation.platform.wanted_servers = 3
    simulation.forget()
    simulation.run(lambda s: s.platform.servers == {1: 3, 2: 3})
    assert [s.version for s in simulation.steps if isinstance(s, Serve)] == [1, 2]
    assert simulation.weights == {1: 90, 2: 10}
    assert simulation.state.stumbles == 0
    simulation.settle()
    assert simulation.registry.alias == {"production": 2, "previous": 1}


def test_a_ledger_that_is_down_holds_the_step_and_loses_no_event() -> None:
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


def test_a_version_that_drains_holds_no_decision_about_another() -> None:
    simulation = second_version("slow", turns_to_drain=50)
    simulation.run(lambda s: s.platform.draining)
    simulation.registry.register(3)
    simulation.run(lambda s: s.weights.get(3))
    assert 2 in simulation.platform.draining
    simulation.settle()
    assert simulation.registry.alias == {"production": 3, "previous": 1}
    simulation.run(lambda s: not s.platform.draining)
    assert set(simulation.platform.pods) == {3}


def test_a_version_that_drains_and_is_wanted_again_is_served_anew() -> None:
    simulation = second_version("slow", turns_to_drain=20)
    simulation.run(lambda s: s.platform.draining)
    simulation.quality[2] = "good"
    simulation.registry.register(2)
    simulation.settle()
    assert simulation.registry.alias == {"production": 2, "previous": 1}


def emptied(serving: int) -> Simulation:
    """Return a world whose controller knows nothing: a person emptied state and production."""
    simulation = first_version()
    simulation.platform.pods = {serving: 0}
    simulation.platform.written = Route({serving: 100})
    simulation.registry.alias = {}
    simulation.registry.register(2)
    simulation.events.clear()
    simulation.forget()
    return simulation


@pytest.mark.parametrize("quality", ["good", "slow"])
def test_what_serves_is_what_a_candidate_replaces_also_where_no_state_says_so(quality: str) -> None:
    simulation = emptied(1)
    simulation.quality[2] = quality
    simulation.settle()
    assert said(simulation)[:2] == ["serve v2", "v1:90 v2:10"]
    good = quality == "good"
    assert simulation.weights == ({2: 100} if good else {1: 100})
    assert simulation.kinds()[0] == ("begun", 2)
    assert simulation.kinds()[-1] == (("watched", 2) if good else ("rolled-back", 2))


def test_a_candidate_that_serves_already_and_alone_is_promoted_and_its_rollout_ends() -> None:
    simulation = emptied(2)
    simulation.settle()
    assert simulation.kinds() == [("begun", 2), ("promoted", 2), ("watched", 2)]
    assert simulation.registry.alias == {"production": 2}


def test_a_version_that_fails_while_nothing_else_serves_is_waited_for() -> None:
    simulation = emptied(2)
    simulation.run(lambda s: s.state.phase == "starting")
    simulation.platform.broken.add(2)
    for _ in range(5):
        step = simulation.turn()
        assert isinstance(step, Wait)
        assert "nothing else serves" in step.why
    simulation.platform.broken.clear()
    simulation.settle()
    assert simulation.registry.alias == {"production": 2}


def test_events_of_orders_outlive_a_ledger_that_is_down_all_the_time() -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.phase == "watching")
    simulation.ledger_up = False
    simulation.platform.wants = Asks(rollback=2)
    simulation.settle()
    simulation.registry.register(3)
    simulation.platform.wants = Asks(promote=3)
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


def test_a_registry_that_is_down_does_not_keep_a_bad_canary_in_traffic() -> None:
    simulation = second_version("slow")
    simulation.run(lambda s: s.state.step == 10)
    simulation.registry.up = False
    simulation.run(lambda s: s.weights == {1: 100})
    simulation.registry.up = True
    simulation.settle()
    assert simulation.registry.alias == {"production": 1}


def test_what_was_served_is_served_again_after_everything_was_stopped() -> None:
    simulation = second_version()
    simulation.settle()
    simulation.platform.pods.clear()
    simulation.settle()
    assert set(simulation.platform.pods) == {2}


def test_a_state_survives_its_texts() -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.phase == "watching")
    route = simulation.platform.written
    assert route is not None
    assert all(isinstance(v, str) for v in route.state.values())
    assert route.state["candidate"] == ""
    assert msgspec.to_builtins(simulation.state)["window"]["version"] == 1
    assert simulation.state.dump() == route.state


def test_waiting_changes_nothing() -> None:
    simulation = first_version()
    simulation.forget()
    for _ in range(50):
        simulation.turn()
    assert all(isinstance(step, Wait) for step in simulation.steps)


def test_a_version_that_was_overtaken_before_its_rollout_began_is_told_of() -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.phase == "watching")
    simulation.registry.register(3)
    simulation.registry.register(4)
    simulation.settle()
    assert simulation.registry.alias == {"production": 4, "previous": 2}
    why = "superseded by v4 before its rollout began"
    assert simulation.registry.tags[3][ROLLOUT_TAG] == f"rolled-back: {why}"
    told = [e for e in simulation.events.values() if e.version == 3]
    assert [(e.kind, e.reason, e.details["percent"]) for e in told] == [("rolled-back", why, 0)]
    assert "serve v3" not in said(simulation)


def test_a_rejected_version_is_not_told_of_as_overtaken() -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.phase == "watching")
    simulation.registry.register(3, gate="rejected")
    simulation.registry.register(4)
    simulation.settle()
    assert ROLLOUT_TAG not in simulation.registry.tags[3]
    assert not any(e.version == 3 for e in simulation.events.values())


@pytest.mark.parametrize("order", ["promote", "abort"])
def test_an_order_that_was_carried_out_does_not_come_alive_again(order: str) -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.step == 10)
    simulation.platform.wants = Asks(**{order: 2})
    simulation.settle()
    assert simulation.platform.wants == Asks()
    if order == "promote":
        simulation.platform.wants = Asks(rollback=2)
        simulation.settle()
    assert simulation.registry.alias == {"production": 1}
    assert simulation.platform.wants == Asks()
    simulation.forget()
    simulation.registry.alias["candidate"] = 2  # by hand
    simulation.settle()
    assert said(simulation)[:3] == ["serve v2", "v1:90 v2:10", "v1:75 v2:25"]
    assert simulation.registry.alias == {"production": 2, "previous": 1}, "and no rollback again"


def test_an_abort_of_the_first_candidate_does_not_meet_its_second_try() -> None:
    simulation = Simulation()
    simulation.registry.register(1)
    simulation.platform.wants = Asks(abort=1)
    simulation.run(lambda s: not s.registry.alias and s.platform.wants == Asks())
    simulation.registry.alias["candidate"] = 1  # by hand
    simulation.settle()
    assert simulation.registry.alias == {"production": 1}


@pytest.mark.parametrize(
    "asked", [Asks(promote=7), Asks(abort=7), Asks(rollback=7), Asks(rollback=1)]
)
def test_an_order_that_nothing_is_left_of_is_withdrawn(asked: Asks) -> None:
    simulation = first_version()
    simulation.platform.wants = msgspec.structs.replace(asked, paused=True)
    simulation.settle()
    assert simulation.platform.wants == Asks(paused=True)


def test_an_order_for_a_candidate_that_waits_its_turn_is_kept() -> None:
    simulation = second_version()
    simulation.run(lambda s: s.state.phase == "watching")
    simulation.registry.register(3)
    simulation.platform.wants = Asks(promote=3)
    simulation.run(lambda s: s.state.phase == "starting" and s.state.version == 3)
    assert simulation.platform.wants == Asks(promote=3)
    simulation.forget()
    simulation.settle()
    assert said(simulation)[:3] == ["serve v3", "retire v1", "v3:100"]


def test_orders_given_while_others_are_withdrawn_stay() -> None:
    asked = Asks(paused=True, promote=3, abort=2)
    assert asked.without({"promote": 2, "abort": 2}) == Asks(paused=True, promote=3)


def test_a_start_that_waits_for_the_registry_is_no_fault_of_the_version() -> None:
    simulation = second_version()
    simulation.platform.fetching = True
    simulation.run(lambda s: 2 in s.platform.pods)
    began = simulation.now
    simulation.run(lambda s: s.now > began + 3 * POLICY.patience)
    assert simulation.weights == {1: 100}
    assert simulation.state.reason == "held: v2 is waiting: the registry does not answer"
    written = [step for step in simulation.steps if isinstance(step, SetRoute)]
    assert len(written) < 25, "it is noted now and then, not in every turn"
    simulation.platform.fetching = False
    simulation.platform.pods[2] = 100  # 50 s of its patience of 60 s
    simulation.settle()
    assert simulation.registry.alias == {"production": 2, "previous": 1}
