"""One decision at a time: the world as it is, and the step that must follow."""

from typing import Any

import msgspec
import numpy as np
import pytest
from simulated import MODEL, POLICY

from watchkeeper.platforms import Asks, Route, Serving
from watchkeeper.registry import GATE_TAG, ROLLOUT_TAG
from watchkeeper.rollout.decide import decide, subject
from watchkeeper.rollout.evidence import Evidence, Sample, Skew
from watchkeeper.rollout.state import State, Window
from watchkeeper.rollout.steps import (
    DropAlias,
    Retire,
    Serve,
    SetAlias,
    SetRoute,
    Step,
    Tag,
    Wait,
)
from watchkeeper.rollout.world import World

NOW = 2000.0
READY, STARTING, FAILED = (
    {"state": "ready"},
    {"state": "starting", "reason": "loading"},
    {"state": "failed", "reason": "no such file"},
)
ROLLING = {"version": 2, "stable": 1, "production": 1, "started": 1980.0, "changed": 1995.0}
CANARY = {**ROLLING, "phase": "canary", "step": 10, "since": 1990.0}
PROMOTING = {**ROLLING, "phase": "promoting", "step": 100, "since": 1998.0, "reason": "passed"}
WATCHING = {
    **PROMOTING,
    "phase": "watching",
    "production": 2,
    "window": Window(1, 1980.0, 1990.0),
}
BACK = {**ROLLING, "phase": "rolling-back", "since": 1998.0, "reason": "slow"}
RETURNING = {**WATCHING, "phase": "returning", "since": 1998.0, "reason": "slow"}


def world(
    weights: dict[int, int] | None,
    state: dict[str, Any],
    aliases: dict[str, int] | None,
    serving: dict[int, dict[str, Any]],
    **fields: Any,
) -> World:
    return World(
        model=MODEL,
        aliases=aliases,
        tags=fields.pop("tags", {1: {ROLLOUT_TAG: "promoted"}, 2: {GATE_TAG: "passed"}}),
        serving={v: Serving(v, **how) for v, how in serving.items()},
        route=Route(weights) if weights is not None else None,
        state=State(**{"since": 1000.0, "changed": 1999.0, **state}),
        **{"confirmed": True, **fields},
    )


def steady(aliases: dict[str, int] | None, serving: dict[int, Any], **fields: Any) -> World:
    return world({1: 100}, {"production": 1}, aliases, serving, **fields)


def evidence(slow: float = 0.0, seconds: float = 6.0) -> Evidence:
    times = np.random.default_rng(0).lognormal(np.log(0.002), 0.3, 60)
    return Evidence(
        Sample(2, {"http": times + slow}),
        Sample(1, {"http": np.concatenate([times] * 5)}),
        seconds,
        Skew(60, 0.0),
    )


P1, P2, C2 = {"production": 1}, {"production": 2}, {"production": 1, "candidate": 2}
P2_FROM_1 = {"production": 2, "previous": 1}
BOTH = {1: READY, 2: READY}

CASES: dict[str, tuple[World, type[Step], dict[str, Any]]] = {
    "an empty registry": (world(None, {}, {}, {}), Wait, {"about": "empty"}),
    "a registry that is down, before anything": (
        world(None, {}, None, {}),
        Wait,
        {"about": "registry"},
    ),
    "a first candidate": (world(None, {}, {"candidate": 2}, {}), Serve, {"version": 2}),
    "a first candidate that is loading": (
        world(None, {}, {"candidate": 2}, {2: STARTING}),
        Wait,
        {"about": "starting"},
    ),
    "a first candidate while paused": (
        world(None, {}, {"candidate": 2}, {2: READY}, asks=Asks(paused=True)),
        Wait,
        {"about": "paused"},
    ),
    "a first candidate that is ready": (
        world(None, {}, {"candidate": 2}, {2: READY}),
        SetRoute,
        {"weights": {2: 100}, "phase": "promoting"},
    ),
    "a first candidate that failed": (
        world(None, {}, {"candidate": 2}, {2: FAILED}),
        Tag,
        {"version": 2, "text": "rolled-back: never ready: v2 is failed: no such file"},
    ),
    "a first candidate that failed, and is tagged": (
        world(None, {}, {"candidate": 2}, {2: FAILED}, tags={2: {ROLLOUT_TAG: "rolled-back: x"}}),
        DropAlias,
        {"alias": "candidate"},
    ),
    "production without a route": (world(None, {}, P1, {}), Serve, {"version": 1}),
    "nothing to do": (steady(P1, {1: READY}), Wait, {"about": "steady"}),
    "production that nothing serves": (steady(P1, {}), Serve, {"version": 1}),
    "a version that nothing needs": (steady(P1, BOTH), Retire, {"version": 2}),
    "a version that is wanted on other numbers of servers": (
        steady(P1, {1: {**READY, "outdated": True}}),
        Serve,
        {"version": 1},
    ),
    "one whose weights are not confirmed": (
        steady(P1, {1: {**READY, "outdated": True}}, confirmed=False),
        Serve,
        {"version": 1},
    ),
    "one that drains beside it": (
        steady(P1, {1: {**READY, "outdated": True}, 2: READY}),
        Retire,
        {"version": 2},
    ),
    "a canary and its stable, both outdated": (
        world({1: 90, 2: 10}, CANARY, C2, {v: {**READY, "outdated": True} for v in BOTH}),
        Serve,
        {"version": 1},
    ),
    "one that nothing needs, but the gateway may": (
        steady(P1, BOTH, confirmed=False),
        Wait,
        {},
    ),
    "a registry that is down": (steady(None, {1: READY}), Wait, {"about": "registry"}),
    "weights that somebody changed": (
        world({1: 50, 2: 50}, {"production": 1}, P1, BOTH),
        SetRoute,
        {"weights": {1: 100}},
    ),
    "weights that the gateway did not take for long": (
        world({1: 100}, {"production": 1, "changed": 1900.0}, P1, {1: READY}, confirmed=False),
        SetRoute,
        {"weights": {1: 100}},
    ),
    "a candidate": (steady(C2, {1: READY}), SetRoute, {"weights": {1: 100}, "phase": "starting"}),
    "a candidate while paused": (
        steady(C2, {1: READY}, asks=Asks(paused=True)),
        Wait,
        {"about": "paused"},
    ),
    "a candidate that was tried before and left its ruins": (
        steady(C2, {1: READY, 2: FAILED}),
        Retire,
        {"version": 2},
    ),
    "a candidate that the gate rejected": (
        steady(C2, {1: READY}, tags={2: {GATE_TAG: "rejected"}}),
        SetRoute,
        {"weights": {1: 100}, "phase": "rolling-back"},
    ),
    "a candidate that is production": (
        steady({"production": 1, "candidate": 1}, {1: READY}),
        DropAlias,
        {"alias": "candidate"},
    ),
    "production without its tag": (steady(P1, {1: READY}, tags={1: {}}), Tag, {"version": 1}),
    "production moved by hand": (
        steady(P2, {1: READY}),
        SetRoute,
        {"weights": {1: 100}, "phase": "starting"},
    ),
    "a candidate that is to be served": (
        world({1: 100}, {**ROLLING, "phase": "starting"}, C2, {1: READY}),
        Serve,
        {"version": 2},
    ),
    "a candidate that is loading": (
        world({1: 100}, {**ROLLING, "phase": "starting"}, C2, {1: READY, 2: STARTING}),
        Wait,
        {"about": "starting"},
    ),
    "a candidate that loads for ever": (
        world(
            {1: 100},
            {**ROLLING, "phase": "starting", "started": 1000.0},
            C2,
            {1: READY, 2: STARTING},
        ),
        SetRoute,
        {"weights": {1: 100}, "phase": "rolling-back"},
    ),
    "a candidate that is ready": (
        world({1: 100}, {**ROLLING, "phase": "starting"}, C2, BOTH),
        SetRoute,
        {"weights": {1: 90, 2: 10}, "phase": "canary", "step": "10", "since": ""},
    ),
    "a candidate that is ready beside a stable that is not": (
        world({1: 100}, {**ROLLING, "phase": "starting"}, C2, {1: STARTING, 2: READY}),
        Wait,
        {"about": "stable"},
    ),
    "weights that were just confirmed": (
        world({1: 90, 2: 10}, {**CANARY, "since": None}, C2, BOTH),
        SetRoute,
        {"weights": {1: 90, 2: 10}, "since": "2000.0"},
    ),
    "weights that are not confirmed": (
        world({1: 90, 2: 10}, {**CANARY, "since": None}, C2, BOTH, confirmed=False),
        Wait,
        {"about": "gateway"},
    ),
    "a step that the ledger says nothing about": (
        world({1: 90, 2: 10}, CANARY, C2, BOTH, blind="down"),
        Wait,
        {"about": "blind"},
    ),
    "a step that passed": (
        world({1: 90, 2: 10}, CANARY, C2, BOTH, evidence=evidence()),
        SetRoute,
        {"weights": {1: 75, 2: 25}, "phase": "canary", "step": "25"},
    ),
    "a step that passed while the gateway routes otherwise": (
        world({1: 90, 2: 10}, CANARY, C2, BOTH, evidence=evidence(), confirmed=False),
        Wait,
        {"about": "gateway"},
    ),
    "a step that failed while the gateway routes otherwise": (
        world({1: 90, 2: 10}, CANARY, C2, BOTH, evidence=evidence(0.04), confirmed=False),
        SetRoute,
        {"weights": {1: 100}},
    ),
    "a step that passed while stable is away": (
        world({1: 90, 2: 10}, CANARY, C2, {1: STARTING, 2: READY}, evidence=evidence()),
        Wait,
        {"about": "stable"},
    ),
    "a step that is not over": (
        world({1: 90, 2: 10}, CANARY, C2, BOTH, evidence=evidence(seconds=3)),
        Wait,
        {"about": "judging"},
    ),
    "a step that failed": (
        world({1: 90, 2: 10}, CANARY, C2, BOTH, evidence=evidence(0.04)),
        SetRoute,
        {"weights": {1: 100}, "phase": "rolling-back", "verdict": "fail", "step": "0"},
    ),
    "a step that failed while stable is away": (
        world({1: 90, 2: 10}, CANARY, C2, {1: STARTING, 2: READY}, evidence=evidence(0.04)),
        Wait,
        {"about": "back"},
    ),
    "a step that failed while the registry is down": (
        world({1: 90, 2: 10}, CANARY, None, BOTH, evidence=evidence(0.04)),
        SetRoute,
        {"weights": {1: 100}},
    ),
    "a step that passed while the registry is down": (
        world({1: 90, 2: 10}, CANARY, None, BOTH, evidence=evidence()),
        Wait,
        {"about": "registry"},
    ),
    "the last step passed": (
        world({1: 50, 2: 50}, {**CANARY, "step": 50}, C2, BOTH, evidence=evidence()),
        SetRoute,
        {"weights": {2: 100}, "phase": "promoting"},
    ),
    "a canary that died": (
        world({1: 90, 2: 10}, CANARY, C2, {1: READY, 2: STARTING}, confirmed=False),
        SetRoute,
        {"weights": {1: 90, 2: 10}, "unready": "2000.0", "stumbles": "1"},
    ),
    "a canary that the platform gave up": (
        world({1: 90, 2: 10}, CANARY, C2, {1: READY, 2: FAILED}, confirmed=False),
        SetRoute,
        {"weights": {1: 100}, "phase": "rolling-back"},
    ),
    "candidate is production already": (
        world({1: 90, 2: 10}, CANARY, {"production": 2, "candidate": 2}, BOTH),
        SetRoute,
        {"weights": {2: 100}, "phase": "promoting"},
    ),
    "a promotion that is not confirmed": (
        world({2: 100}, PROMOTING, C2, BOTH, confirmed=False),
        Wait,
        {"about": "gateway"},
    ),
    "a promotion that is confirmed": (
        world({2: 100}, PROMOTING, C2, BOTH),
        SetAlias,
        {"alias": "previous", "version": 1},
    ),
    "a promotion with previous set": (
        world({2: 100}, PROMOTING, {**C2, "previous": 1}, BOTH),
        SetAlias,
        {"alias": "production", "version": 2},
    ),
    "a promotion that is committed": (
        world({2: 100}, PROMOTING, {**P2_FROM_1, "candidate": 2}, BOTH),
        SetRoute,
        {"weights": {2: 100}, "phase": "watching", "production": "2"},
    ),
    "a watch that begins": (
        world({2: 100}, WATCHING, {**P2_FROM_1, "candidate": 2}, BOTH),
        Tag,
        {"version": 2, "text": "promoted"},
    ),
    "a watch of a version that died": (
        world(
            {2: 100},
            WATCHING,
            P2_FROM_1,
            {1: READY, 2: FAILED},
            evidence=evidence(seconds=3),
            tags={2: {ROLLOUT_TAG: "promoted"}},
        ),
        SetRoute,
        {"weights": {1: 100}, "phase": "returning"},
    ),
    "a watch that goes on": (
        world(
            {2: 100},
            WATCHING,
            P2_FROM_1,
            BOTH,
            evidence=evidence(seconds=3),
            tags={2: {ROLLOUT_TAG: "promoted"}},
        ),
        Wait,
        {"about": "watching"},
    ),
    "a watch that is over": (
        world(
            {2: 100},
            WATCHING,
            P2_FROM_1,
            BOTH,
            evidence=evidence(seconds=8),
            tags={2: {ROLLOUT_TAG: "promoted"}},
        ),
        SetRoute,
        {"weights": {2: 100}, "phase": "steady", "verdict": "pass"},
    ),
    "a watch that sees the new version fail": (
        world(
            {2: 100},
            WATCHING,
            P2_FROM_1,
            BOTH,
            evidence=evidence(0.06, seconds=3),
            tags={2: {ROLLOUT_TAG: "promoted"}},
        ),
        SetRoute,
        {"weights": {1: 100}, "phase": "returning"},
    ),
    "a way back that is not confirmed": (
        world({1: 100}, BACK, C2, BOTH, confirmed=False),
        Wait,
        {"about": "gateway"},
    ),
    "a way back": (
        world({1: 100}, BACK, C2, BOTH),
        Tag,
        {"version": 2, "text": "rolled-back: slow"},
    ),
    "a way back that is tagged": (
        world({1: 100}, BACK, C2, BOTH, tags={2: {ROLLOUT_TAG: "rolled-back: slow"}}),
        DropAlias,
        {"alias": "candidate"},
    ),
    "a way back that is done": (
        world({1: 100}, BACK, P1, BOTH, tags={2: {ROLLOUT_TAG: "rolled-back: slow"}}),
        SetRoute,
        {"weights": {1: 100}, "phase": "steady", "candidate": ""},
    ),
    "a way back of what was moved by hand": (
        world({1: 100}, BACK, P2, BOTH),
        SetAlias,
        {"alias": "production", "version": 1},
    ),
    "a return that is not confirmed": (
        world({1: 100}, RETURNING, P2_FROM_1, BOTH, confirmed=False),
        Wait,
        {"about": "gateway"},
    ),
    "a return": (
        world({1: 100}, RETURNING, P2_FROM_1, BOTH),
        SetAlias,
        {"alias": "production", "version": 1},
    ),
    "a return that is committed": (
        world({1: 100}, RETURNING, {"production": 1, "previous": 1}, BOTH),
        DropAlias,
        {"alias": "previous"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_step_that_follows_from(name: str) -> None:
    given, kind, expected = CASES[name]
    step = decide(given, POLICY, NOW)
    assert type(step) is kind, step
    told = {**step.route.state, "weights": step.route.weights} if isinstance(step, SetRoute) else {}
    told = told or msgspec.to_builtins(step)
    assert {key: told[key] for key in expected} == expected
    assert step.why
    assert decide(given, POLICY, NOW) == step  # nothing but the world decides


def test_the_version_in_question_is_the_one_whose_policy_counts() -> None:
    assert subject(steady(P1, {1: READY})) is None
    assert subject(steady(C2, {1: READY})) == 2
    assert subject(steady({"production": 3, "candidate": 2}, {1: READY})) == 3
    assert subject(world({1: 90, 2: 10}, CANARY, None, BOTH)) == 2
