"""Only a loop that really closed is called closed."""

import msgspec
import pytest

from watchkeeper.demo.checking import same
from watchkeeper.demo.shares import Step
from watchkeeper.demo.summary import Extra, Requests, Summary, problems

ALL = Requests(sent=100, answered=100, failed=0, wrong=0, in_ledger=100)
CLOSED = Summary(
    duration_s=120.0,
    requests={"http": ALL, "grpc": ALL},
    steps=[
        Step(2, 10, 300, 30, 300, 29, "pass", ""),
        Step(2, 25, 300, 76, 300, 74, "pass", ""),
        Step(2, 50, 300, 151, 300, 150, "pass", ""),
        Step(3, 10, 300, 31, 300, 30, "fail", "slow"),
    ],
    shares_p_value=0.7,
    episodes=1,
    jobs=3,
    versions=3,
    promoted=[1, 2],
    rolled_back=[3],
    labels=190,
)
EXTRA = Extra(
    labels_accepted=190,
    repeated_ids=0,
    strange_records=0,
    steps_expected=[(2, 10, "pass"), (2, 25, "pass"), (2, 50, "pass"), (3, 10, "fail")],
)


def test_a_closed_loop_has_no_problems() -> None:
    assert problems(CLOSED, EXTRA, chaos=False) == []
    assert problems(CLOSED, EXTRA, chaos=True) == []


@pytest.mark.parametrize("chaos", [False, True])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"failed": 1, "answered": 99, "in_ledger": 99}, "1 failed"),
        ({"wrong": 1}, "1 wrong"),
        ({"in_ledger": 99}, "99 in the ledger"),
        ({"answered": 99}, "not the same"),
        ({"sent": 0, "answered": 0, "in_ledger": 0}, "no request was sent"),
    ],
)
def test_each_request_must_be_answered_right_and_kept(
    change: dict[str, int], said: str, chaos: bool
) -> None:
    requests = {"http": ALL, "grpc": msgspec.structs.replace(ALL, **change)}
    found = problems(msgspec.structs.replace(CLOSED, requests=requests), EXTRA, chaos=chaos)
    assert any(said in problem and "grpc" in problem for problem in found)


@pytest.mark.parametrize("chaos", [False, True])
@pytest.mark.parametrize(
    ("change", "said"),
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
def test_the_story_must_have_gone_as_told(
    change: dict[str, object], said: str, chaos: bool
) -> None:
    found = problems(msgspec.structs.replace(CLOSED, **change), EXTRA, chaos=chaos)
    assert any(said in problem for problem in found)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"repeated_ids": 1}, "more than once"), ({"strange_records": 2}, "never answered")],
)
def test_each_prediction_id_is_there_once(change: dict[str, int], said: str) -> None:
    found = problems(CLOSED, msgspec.structs.replace(EXTRA, **change), chaos=True)
    assert any(said in problem for problem in found)


def test_steps_and_shares_are_judged_unless_things_were_killed() -> None:
    fewer = msgspec.structs.replace(CLOSED, steps=CLOSED.steps[:-1])
    skewed = msgspec.structs.replace(CLOSED, shares_p_value=1e-9)
    silent = msgspec.structs.replace(
        CLOSED, steps=[msgspec.structs.replace(CLOSED.steps[0], grpc_requests=0), *CLOSED.steps[1:]]
    )
    for summary in (fewer, skewed, silent):
        assert problems(summary, EXTRA, chaos=False)
        assert not problems(summary, EXTRA, chaos=True)


def test_an_answer_is_right_within_the_tolerance_of_scores_alone() -> None:
    truth = {"failure_probability": 0.25, "failure": 0, "risk_level": "MEDIUM"}
    assert same({**truth, "failure_probability": 0.25 + 9e-7}, truth)
    assert not same({**truth, "failure_probability": 0.25 + 2e-6}, truth)
    assert not same({**truth, "failure_probability": float("nan")}, truth)
    assert not same({**truth, "failure": 1}, truth)
    assert not same({**truth, "risk_level": "LOW"}, truth)
    assert not same({"failure": 0}, truth)
