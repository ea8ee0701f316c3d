"""The summary has no problems only if the loop has really closed."""

import msgspec
import pytest

from watchkeeper.demo.offline_comparison import is_same
from watchkeeper.demo.shares import CanaryStep
from watchkeeper.demo.summary import CrossChecks, Requests, Summary, find_problems

ALL = Requests(sent=100, answered=100, failed=0, wrong=0, in_ledger=100)
CLOSED = Summary(
    duration_s=120.0,
    requests={"http": ALL, "grpc": ALL},
    steps=[
        CanaryStep(2, 10, 300, 30, 300, 29, "pass", ""),
        CanaryStep(2, 25, 300, 76, 300, 74, "pass", ""),
        CanaryStep(2, 50, 300, 151, 300, 150, "pass", ""),
        CanaryStep(3, 10, 300, 31, 300, 30, "fail", "slow"),
    ],
    shares_p_value=0.7,
    episodes=1,
    jobs=3,
    versions=3,
    promoted=[1, 2],
    rolled_back=[3],
    labels=190,
)
CHECKS = CrossChecks(
    labels_accepted=190,
    repeated_ids=0,
    unknown_records=0,
    expected_steps=[(2, 10, "pass"), (2, 25, "pass"), (2, 50, "pass"), (3, 10, "fail")],
)


def test_closed_loop_has_no_problems() -> None:
    assert find_problems(CLOSED, CHECKS, chaos=False) == []
    assert find_problems(CLOSED, CHECKS, chaos=True) == []


@pytest.mark.parametrize("chaos", [False, True])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"failed": 1, "answered": 99, "in_ledger": 99}, "1 failed"),
        ({"wrong": 1}, "1 wrong"),
        ({"in_ledger": 99}, "99 in the ledger"),
        ({"answered": 99}, "not the same"),
        ({"sent": 0, "answered": 0, "in_ledger": 0}, "no request was sent"),
    ],
)
def test_every_request_must_be_answered_correctly_and_stored(
    change: dict[str, int], expected: str, chaos: bool
) -> None:
    requests = {"http": ALL, "grpc": msgspec.structs.replace(ALL, **change)}
    found = find_problems(msgspec.structs.replace(CLOSED, requests=requests), CHECKS, chaos=chaos)
    assert any(expected in problem and "grpc" in problem for problem in found)


@pytest.mark.parametrize("chaos", [False, True])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"promoted": [1]}, "promoted"),
        ({"promoted": [1, 2, 3]}, "promoted"),
        ({"rolled_back": []}, "rolled back"),
        ({"episodes": 2}, "episodes"),
        ({"jobs": 4}, "training runs"),
        ({"versions": 4}, "versions"),
        ({"labels": 189}, "189 labels"),
        ({"labels": 0}, "0 labels"),
    ],
)
def test_every_decision_must_be_the_expected_one(
    change: dict[str, object], expected: str, chaos: bool
) -> None:
    found = find_problems(msgspec.structs.replace(CLOSED, **change), CHECKS, chaos=chaos)
    assert any(expected in problem for problem in found)


@pytest.mark.parametrize(
    ("change", "expected"),
    [({"repeated_ids": 1}, "more than once"), ({"unknown_records": 2}, "never answered")],
)
def test_every_prediction_id_is_used_once(change: dict[str, int], expected: str) -> None:
    found = find_problems(CLOSED, msgspec.structs.replace(CHECKS, **change), chaos=True)
    assert any(expected in problem for problem in found)


def test_steps_and_shares_are_checked_without_chaos_only() -> None:
    fewer = msgspec.structs.replace(CLOSED, steps=CLOSED.steps[:-1])
    skewed = msgspec.structs.replace(CLOSED, shares_p_value=1e-9)
    silent = msgspec.structs.replace(
        CLOSED, steps=[msgspec.structs.replace(CLOSED.steps[0], grpc_requests=0), *CLOSED.steps[1:]]
    )
    for summary in (fewer, skewed, silent):
        assert find_problems(summary, CHECKS, chaos=False)
        assert not find_problems(summary, CHECKS, chaos=True)


def test_only_scores_have_a_tolerance() -> None:
    truth = {"failure_probability": 0.25, "failure": 0, "risk_level": "MEDIUM"}
    assert is_same({**truth, "failure_probability": 0.25 + 9e-7}, truth)
    assert not is_same({**truth, "failure_probability": 0.25 + 2e-6}, truth)
    assert not is_same({**truth, "failure_probability": float("nan")}, truth)
    assert not is_same({**truth, "failure": 1}, truth)
    assert not is_same({**truth, "risk_level": "LOW"}, truth)
    assert not is_same({"failure": 0}, truth)
