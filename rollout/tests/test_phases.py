"""The decision of a single turn: an observed state, and the action that must follow."""

from typing import Any

import msgspec
import numpy as np
import pytest
from simulated import MODEL, POLICY

from watchkeeper.platforms import RolloutCommands, Route, ServingStatus
from watchkeeper.registry import GATE_TAG, ROLLOUT_TAG
from watchkeeper.rollout.actions import (
    Action,
    DeleteAlias,
    Retire,
    Serve,
    SetAlias,
    SetRoute,
    SetTag,
    Wait,
)
from watchkeeper.rollout.evidence import Evidence, Sample, Skew
from watchkeeper.rollout.observed import ObservedState
from watchkeeper.rollout.phases import decide, version_in_question
from watchkeeper.rollout.state import RolloutState, Window

NOW = 2000.0
READY, STARTING, FAILED = (
    {"state": "ready"},
    {"state": "starting", "reason": "loading"},
    {"state": "failed", "reason": "no such file"},
)
ROLLING = {"version": 2, "stable": 1, "production": 1, "started": 1980.0, "changed": 1995.0}
CANARY = {**ROLLING, "phase": "canary", "canary_percent": 10, "since": 1990.0}
PROMOTING = {
    **ROLLING,
    "phase": "promoting",
    "canary_percent": 100,
    "since": 1998.0,
    "reason": "passed",
}
WATCHING = {
    **PROMOTING,
    "phase": "watching",
    "production": 2,
    "baseline": Window(1, 1980.0, 1990.0),
}
ROLLING_BACK = {**ROLLING, "phase": "rolling-back", "since": 1998.0, "reason": "slow"}
RETURNING = {**WATCHING, "phase": "returning", "since": 1998.0, "reason": "slow"}


def observe(
    weights: dict[int, int] | None,
    state: dict[str, Any],
    aliases: dict[str, int] | None,
    serving: dict[int, dict[str, Any]],
    **fields: Any,
) -> ObservedState:
    return ObservedState(
        model=MODEL,
        now=NOW,
        policy=POLICY,
        aliases=aliases,
        tags=fields.pop("tags", {1: {ROLLOUT_TAG: "promoted"}, 2: {GATE_TAG: "passed"}}),
        serving={v: ServingStatus(v, **how) for v, how in serving.items()},
        route=Route(weights) if weights is not None else None,
        state=RolloutState(**{"since": 1000.0, "changed": 1999.0, **state}),
        **{"confirmed": True, **fields},
    )


def steady(aliases: dict[str, int] | None, serving: dict[int, Any], **fields: Any) -> ObservedState:
    return observe({1: 100}, {"production": 1}, aliases, serving, **fields)


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

CASES: dict[str, tuple[ObservedState, type[Action], dict[str, Any]]] = {
    "an empty registry": (observe(None, {}, {}, {}), Wait, {"key": "empty"}),
    "a registry that is down, before anything": (
        observe(None, {}, None, {}),
        Wait,
        {"key": "registry"},
    ),
    "a first candidate": (observe(None, {}, {"candidate": 2}, {}), Serve, {"version": 2}),
    "a first candidate that is loading": (
        observe(None, {}, {"candidate": 2}, {2: STARTING}),
        Wait,
        {"key": "starting"},
    ),
    "a first candidate while paused": (
        observe(None, {}, {"candidate": 2}, {2: READY}, commands=RolloutCommands(paused=True)),
        Wait,
        {"key": "paused"},
    ),
    "a first candidate that is ready": (
        observe(None, {}, {"candidate": 2}, {2: READY}),
        SetRoute,
        {"weights": {2: 100}, "phase": "promoting"},
    ),
    "a first candidate that failed": (
        observe(None, {}, {"candidate": 2}, {2: FAILED}),
        SetTag,
        {"version": 2, "text": "rolled-back: never ready: v2 is failed: no such file"},
    ),
    "a first candidate that failed, and is tagged": (
        observe(None, {}, {"candidate": 2}, {2: FAILED}, tags={2: {ROLLOUT_TAG: "rolled-back: x"}}),
        DeleteAlias,
        {"alias": "candidate"},
    ),
    "production without a route": (observe(None, {}, P1, {}), Serve, {"version": 1}),
    "nothing to do": (steady(P1, {1: READY}), Wait, {"key": "steady"}),
    "production that nothing serves": (steady(P1, {}), Serve, {"version": 1}),
    "a version that nothing needs": (steady(P1, BOTH), Retire, {"version": 2}),
    "a version whose number of servers was changed": (
        steady(P1, {1: {**READY, "outdated": True}}),
        Serve,
        {"version": 1},
    ),
    "the same while the weights are not confirmed": (
        steady(P1, {1: {**READY, "outdated": True}}, confirmed=False),
        Serve,
        {"version": 1},
    ),
    "the same beside a version that nothing needs": (
        steady(P1, {1: {**READY, "outdated": True}, 2: READY}),
        Retire,
        {"version": 2},
    ),
    "a canary and its stable, both outdated": (
        observe({1: 90, 2: 10}, CANARY, C2, {v: {**READY, "outdated": True} for v in BOTH}),
        Serve,
        {"version": 1},
    ),
    "a version that nothing needs, but the gateway may still use": (
        steady(P1, BOTH, confirmed=False),
        Wait,
        {},
    ),
    "a registry that is down": (steady(None, {1: READY}), Wait, {"key": "registry"}),
    "weights that a person changed": (
        observe({1: 50, 2: 50}, {"production": 1}, P1, BOTH),
        SetRoute,
        {"weights": {1: 100}},
    ),
    "weights that a person changed, for a version that is not ready": (
        observe({2: 100}, {"production": 1}, P1, {1: STARTING, 2: READY}),
        Wait,
        {"key": "repair"},
    ),
    "weights that a person changed in a canary step": (
        observe({1: 50, 2: 50}, {**CANARY, "since": 1990.0}, C2, BOTH),
        SetRoute,
        {"weights": {1: 90, 2: 10}, "phase": "canary", "since": ""},
    ),
    "weights that the gateway has not confirmed for long": (
        observe({1: 100}, {"production": 1, "changed": 1900.0}, P1, {1: READY}, confirmed=False),
        SetRoute,
        {"weights": {1: 100}},
    ),
    "a candidate": (steady(C2, {1: READY}), SetRoute, {"weights": {1: 100}, "phase": "starting"}),
    "a candidate while paused": (
        steady(C2, {1: READY}, commands=RolloutCommands(paused=True)),
        Wait,
        {"key": "paused"},
    ),
    "a candidate that failed in an earlier try": (
        steady(C2, {1: READY, 2: FAILED}),
        Retire,
        {"version": 2},
    ),
    "a candidate that the gate rejected": (
        steady(C2, {1: READY}, tags={1: {ROLLOUT_TAG: "promoted"}, 2: {GATE_TAG: "rejected"}}),
        SetRoute,
        {"weights": {1: 100}, "phase": "rolling-back"},
    ),
    "a candidate that is production": (
        steady({"production": 1, "candidate": 1}, {1: READY}),
        DeleteAlias,
        {"alias": "candidate"},
    ),
    "production without its tag": (steady(P1, {1: READY}, tags={1: {}}), SetTag, {"version": 1}),
    "production moved by hand": (
        steady(P2, {1: READY}),
        SetRoute,
        {"weights": {1: 100}, "phase": "starting"},
    ),
    "a candidate that is to be served": (
        observe({1: 100}, {**ROLLING, "phase": "starting"}, C2, {1: READY}),
        Serve,
        {"version": 2},
    ),
    "a candidate that is loading": (
        observe({1: 100}, {**ROLLING, "phase": "starting"}, C2, {1: READY, 2: STARTING}),
        Wait,
        {"key": "starting"},
    ),
    "a candidate that is not ready in time": (
        observe(
            {1: 100},
            {**ROLLING, "phase": "starting", "started": 1000.0},
            C2,
            {1: READY, 2: STARTING},
        ),
        SetRoute,
        {"weights": {1: 100}, "phase": "rolling-back"},
    ),
    "a candidate that is ready": (
        observe({1: 100}, {**ROLLING, "phase": "starting"}, C2, BOTH),
        SetRoute,
        {"weights": {1: 90, 2: 10}, "phase": "canary", "canary_percent": "10", "since": ""},
    ),
    "a candidate that is ready beside a stable that is not": (
        observe({1: 100}, {**ROLLING, "phase": "starting"}, C2, {1: STARTING, 2: READY}),
        Wait,
        {"key": "stable"},
    ),
    "weights that were just confirmed": (
        observe({1: 90, 2: 10}, {**CANARY, "since": None}, C2, BOTH),
        SetRoute,
        {"weights": {1: 90, 2: 10}, "since": "2000.0"},
    ),
    "weights that are not confirmed": (
        observe({1: 90, 2: 10}, {**CANARY, "since": None}, C2, BOTH, confirmed=False),
        Wait,
        {"key": "gateway"},
    ),
    "a step without evidence": (
        observe({1: 90, 2: 10}, CANARY, C2, BOTH, evidence_error="down"),
        Wait,
        {"key": "evidence"},
    ),
    "a step that passed": (
        observe({1: 90, 2: 10}, CANARY, C2, BOTH, evidence=evidence()),
        SetRoute,
        {"weights": {1: 75, 2: 25}, "phase": "canary", "canary_percent": "25"},
    ),
    "a step that passed while the weights are not confirmed": (
        observe({1: 90, 2: 10}, CANARY, C2, BOTH, evidence=evidence(), confirmed=False),
        Wait,
        {"key": "gateway"},
    ),
    "a step that failed while the weights are not confirmed": (
        observe({1: 90, 2: 10}, CANARY, C2, BOTH, evidence=evidence(0.04), confirmed=False),
        SetRoute,
        {"weights": {1: 100}},
    ),
    "a step that passed while stable is not ready": (
        observe({1: 90, 2: 10}, CANARY, C2, {1: STARTING, 2: READY}, evidence=evidence()),
        Wait,
        {"key": "stable"},
    ),
    "a step that is not over": (
        observe({1: 90, 2: 10}, CANARY, C2, BOTH, evidence=evidence(seconds=3)),
        Wait,
        {"key": "judging"},
    ),
    "a step that failed": (
        observe({1: 90, 2: 10}, CANARY, C2, BOTH, evidence=evidence(0.04)),
        SetRoute,
        {"weights": {1: 100}, "phase": "rolling-back", "verdict": "fail", "canary_percent": "0"},
    ),
    "a step that failed while stable is not ready": (
        observe({1: 90, 2: 10}, CANARY, C2, {1: STARTING, 2: READY}, evidence=evidence(0.04)),
        Wait,
        {"key": "rollback"},
    ),
    "a step that failed while the registry is down": (
        observe({1: 90, 2: 10}, CANARY, None, BOTH, evidence=evidence(0.04)),
        SetRoute,
        {"weights": {1: 100}},
    ),
    "a step that passed while the registry is down": (
        observe({1: 90, 2: 10}, CANARY, None, BOTH, evidence=evidence()),
        Wait,
        {"key": "registry"},
    ),
    "the last step passed": (
        observe({1: 50, 2: 50}, {**CANARY, "canary_percent": 50}, C2, BOTH, evidence=evidence()),
        SetRoute,
        {"weights": {2: 100}, "phase": "promoting"},
    ),
    "a canary that lost its readiness": (
        observe({1: 90, 2: 10}, CANARY, C2, {1: READY, 2: STARTING}, confirmed=False),
        SetRoute,
        {"weights": {1: 90, 2: 10}, "unready_since": "2000.0", "readiness_losses": "1"},
    ),
    "a canary that failed": (
        observe({1: 90, 2: 10}, CANARY, C2, {1: READY, 2: FAILED}, confirmed=False),
        SetRoute,
        {"weights": {1: 100}, "phase": "rolling-back"},
    ),
    "candidate is production already": (
        observe({1: 90, 2: 10}, CANARY, {"production": 2, "candidate": 2}, BOTH),
        SetRoute,
        {"weights": {2: 100}, "phase": "promoting"},
    ),
    "a promotion that is not confirmed": (
        observe({2: 100}, PROMOTING, C2, BOTH, confirmed=False),
        Wait,
        {"key": "gateway"},
    ),
    "a promotion that is confirmed": (
        observe({2: 100}, PROMOTING, C2, BOTH),
        SetAlias,
        {"alias": "previous", "version": 1},
    ),
    "a promotion with previous set": (
        observe({2: 100}, PROMOTING, {**C2, "previous": 1}, BOTH),
        SetAlias,
        {"alias": "production", "version": 2},
    ),
    "a promotion that is committed": (
        observe({2: 100}, PROMOTING, {**P2_FROM_1, "candidate": 2}, BOTH),
        SetRoute,
        {"weights": {2: 100}, "phase": "watching", "production": "2"},
    ),
    "a watch that starts": (
        observe({2: 100}, WATCHING, {**P2_FROM_1, "candidate": 2}, BOTH),
        SetTag,
        {"version": 2, "text": "promoted"},
    ),
    "a watch of a version that failed": (
        observe(
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
    "a watch that is not over": (
        observe(
            {2: 100},
            WATCHING,
            P2_FROM_1,
            BOTH,
            evidence=evidence(seconds=3),
            tags={2: {ROLLOUT_TAG: "promoted"}},
        ),
        Wait,
        {"key": "watching"},
    ),
    "a watch that is over": (
        observe(
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
    "a watch without a baseline": (
        observe(
            {2: 100},
            {**WATCHING, "baseline": None, "since": NOW - 67},
            P2_FROM_1,
            BOTH,
            evidence_error="the state has no window from before the promotion",
            tags={2: {ROLLOUT_TAG: "promoted"}},
        ),
        Wait,
        {"key": "evidence"},
    ),
    "a watch without a baseline, after watch_seconds and patience": (
        observe(
            {2: 100},
            {**WATCHING, "baseline": None, "since": NOW - 69},
            P2_FROM_1,
            BOTH,
            evidence_error="the state has no window from before the promotion",
            tags={2: {ROLLOUT_TAG: "promoted"}},
        ),
        SetRoute,
        {"weights": {2: 100}, "phase": "steady", "verdict": "inconclusive"},
    ),
    "a watch that fails": (
        observe(
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
    "a rollback that is not confirmed": (
        observe({1: 100}, ROLLING_BACK, C2, BOTH, confirmed=False),
        Wait,
        {"key": "gateway"},
    ),
    "a rollback": (
        observe({1: 100}, ROLLING_BACK, C2, BOTH),
        SetTag,
        {"version": 2, "text": "rolled-back: slow"},
    ),
    "a rollback that is tagged": (
        observe({1: 100}, ROLLING_BACK, C2, BOTH, tags={2: {ROLLOUT_TAG: "rolled-back: slow"}}),
        DeleteAlias,
        {"alias": "candidate"},
    ),
    "a rollback that is settled": (
        observe({1: 100}, ROLLING_BACK, P1, BOTH, tags={2: {ROLLOUT_TAG: "rolled-back: slow"}}),
        SetRoute,
        {"weights": {1: 100}, "phase": "steady", "candidate": ""},
    ),
    "a rollback of a version that was moved by hand": (
        observe({1: 100}, ROLLING_BACK, P2, BOTH),
        SetAlias,
        {"alias": "production", "version": 1},
    ),
    "a return that is not confirmed": (
        observe({1: 100}, RETURNING, P2_FROM_1, BOTH, confirmed=False),
        Wait,
        {"key": "gateway"},
    ),
    "a return": (
        observe({1: 100}, RETURNING, P2_FROM_1, BOTH),
        SetAlias,
        {"alias": "production", "version": 1},
    ),
    "a return that is committed": (
        observe({1: 100}, RETURNING, {"production": 1, "previous": 1}, BOTH),
        DeleteAlias,
        {"alias": "previous"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_action_that_follows_from(name: str) -> None:
    given, kind, expected = CASES[name]
    action = decide(given)
    assert type(action) is kind, action
    fields = msgspec.to_builtins(action)
    if isinstance(action, SetRoute):
        fields = {**action.route.state, "weights": action.route.weights}
    assert {key: fields[key] for key in expected} == expected
    assert action.reason
    assert decide(given) == action  # it depends on nothing else


def test_the_version_in_question() -> None:
    assert version_in_question(steady(P1, {1: READY})) is None
    assert version_in_question(steady(C2, {1: READY})) == 2
    assert version_in_question(steady({"production": 3, "candidate": 2}, {1: READY})) == 3
    assert version_in_question(observe({1: 90, 2: 10}, CANARY, None, BOTH)) == 2
