"""Bounds against known numbers, and verdicts about good and bad versions."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from watchkeeper.core.head import Head
from watchkeeper.core.policies import RolloutPolicy, override
from watchkeeper.core.tasks import task_of
from watchkeeper.core.tasks.base import Labelled
from watchkeeper.rollout.analysis import judge_step, judge_watch, protocols_in_use
from watchkeeper.rollout.checks import CHECKS, count_comparisons
from watchkeeper.rollout.checks.base import ALPHA, Look
from watchkeeper.rollout.evidence import Evidence, Judgement, Sample, Skew
from watchkeeper.rollout.intervals import (
    quantile,
    quantile_lower_bound,
    quantile_upper_bound,
    rate_lower_bound,
    rate_upper_bound,
)

POLICY = RolloutPolicy(step_seconds=6, minimum_requests=25, watch_seconds=8)
NAN = float("nan")
SAME = Skew(100, 1e-8)


def times(n: int, median: float = 0.002, seed: int = 0) -> Any:
    return np.random.default_rng(seed).lognormal(np.log(median), 0.3, n)


def sample(version: int, n: int, **fields: Any) -> Sample:
    both = {"http": times(n, seed=version), "grpc": times(n, seed=version + 10)}
    return Sample(version, **{"latencies": both, **fields})


FAILED = task_of(Head("p", "p.skops", "predict_proba", label="failed"))
RUL = task_of(Head("life", "life.skops", "predict", task="regression", label="rul"))


def evidence(new: Sample, stable: Sample | None = None, **fields: Any) -> Evidence:
    return Evidence(
        **{
            "new": new,
            "stable": stable or sample(1, 270),
            "seconds": 6.0,
            "skew": SAME,
            "tasks": (FAILED,),
            **fields,
        }
    )


def test_bounds_of_a_rate() -> None:
    assert rate_upper_bound(0, 10, 0.05) == pytest.approx(1 - 0.05 ** (1 / 10))
    assert rate_lower_bound(10, 10, 0.05) == pytest.approx(0.05 ** (1 / 10))
    assert (rate_lower_bound(0, 10, 0.05), rate_upper_bound(10, 10, 0.05)) == (0.0, 1.0)
    # Clopper and Pearson for 3 of 20, both sides at 2.5 %
    assert rate_lower_bound(3, 20, 0.025) == pytest.approx(0.0321, abs=1e-4)
    assert rate_upper_bound(3, 20, 0.025) == pytest.approx(0.3789, abs=1e-4)


def test_bounds_of_a_quantile_have_the_ranks_of_the_binomial_distribution() -> None:
    rising = np.arange(1.0, 11.0)  # the value is its rank
    # P(at most 1 of 10 below the median) = 11/1024
    assert quantile_lower_bound(rising, 0.5, 11 / 1024) == 2
    assert quantile_lower_bound(rising, 0.5, 10.9 / 1024) == 1
    assert quantile_upper_bound(rising, 0.5, 11 / 1024) == 9
    assert quantile_lower_bound(rising, 0.5, 0.9 / 1024) is None
    assert quantile_upper_bound(rising, 0.9, 0.9**10) == 10
    assert quantile_upper_bound(rising, 0.9, 0.9**10 - 1e-9) is None
    assert quantile_lower_bound(np.array([]), 0.5, 0.5) is None
    assert (quantile(rising, 0.5), quantile(rising, 0.9), quantile(rising, 0.01)) == (5, 9, 1)


@pytest.mark.parametrize("q", [0.5, 0.9])
def test_bounds_of_a_quantile_hold_at_their_level(q: float) -> None:
    random = np.random.default_rng(3)
    truth = -math.log(1 - q)
    drawn = np.sort(random.exponential(1.0, (4000, 40)), axis=1)
    above = [quantile_lower_bound(row, q, 0.1) for row in drawn]
    below = [quantile_upper_bound(row, q, 0.1) for row in drawn]
    assert sum(b > truth for b in above if b is not None) / 4000 < 0.115
    assert sum(b < truth for b in below if b is not None) / 4000 < 0.115


def test_levels_of_all_looks_of_all_comparisons_add_up_to_alpha() -> None:
    look = Look(evidence(sample(2, 30)), POLICY, "step", count_comparisons(POLICY))
    total = sum(look.comparisons * 2 * look.level(n, 2) for n in range(1, 200_000))
    assert total == pytest.approx(ALPHA, rel=1e-4)


def test_the_budget_is_divided_by_the_comparisons_that_the_policy_asks_for() -> None:
    one_quantile = override(POLICY, {"latency_quantile": 0.5})
    assert count_comparisons(one_quantile) == count_comparisons(POLICY) - 2  # one per protocol


def test_no_check_makes_more_comparisons_than_it_declares() -> None:
    random = np.random.default_rng(0)
    labelled = Labelled(np.arange(100) % 2 * 1.0, {"p": random.normal(size=100)})
    both = [
        sample(v, 270, scores={"p": random.normal(size=60)}, labelled={"p": labelled})
        for v in (2, 1)
    ]
    found = evidence(*both, gate_shift={"p": 0.0})
    look = Look(found, POLICY, "step", count_comparisons(POLICY))
    for check in CHECKS:
        if declared := check.comparisons(POLICY):  # 0: its results have no uncertainty
            assert len(check.run(look)) == declared, check


def test_an_equal_version_passes() -> None:
    found = judge_step(evidence(sample(2, 30)), POLICY)
    assert found.verdict == "pass", found.reason
    assert found.observations["http errors"] == {"new": [0, 30], "stable": [0, 270]}


def test_a_slow_version_fails_and_the_reason_has_the_numbers() -> None:
    slow = {"http": times(30) + 0.04, "grpc": times(30)}
    found = judge_step(evidence(sample(2, 30, latencies=slow)), POLICY)
    assert found.verdict == "fail"
    assert "http latency at 0.5: 41.9 ms, stable 2.0 ms" in found.reason
    assert "grpc" not in found.reason


def test_a_slower_version_below_the_floor_passes() -> None:
    slower = {"http": times(300) + 0.006, "grpc": times(300)}
    assert judge_step(evidence(sample(2, 300, latencies=slower)), POLICY).verdict == "pass"


def test_a_few_slow_answers_are_inconclusive() -> None:
    few = {"http": times(5) + 0.04, "grpc": times(30)}
    assert judge_step(evidence(sample(2, 5, latencies=few)), POLICY).verdict == "inconclusive"
    some = {"http": np.append(times(22), np.full(8, 0.05)), "grpc": times(30)}
    found = judge_step(evidence(sample(2, 30, latencies=some)), POLICY)
    assert (found.verdict, "latency at 0.9" in found.reason) == ("inconclusive", True)


def test_errors_fail_when_they_are_certainly_more_than_those_of_stable() -> None:
    def judged(failed: int, answered: int) -> str:
        new = sample(2, answered, errors={"http": failed})
        return judge_step(evidence(new), POLICY).verdict

    assert judged(0, 30) == "pass"
    assert judged(1, 30) == "inconclusive"
    assert judged(1, 300) == "pass"
    assert judged(25, 30) == "fail"
    assert judged(25, 0) == "fail"


def test_errors_that_both_versions_have_pass() -> None:
    stable = sample(1, 270, errors={"http": 30, "grpc": 30})
    new = sample(2, 30, errors={"http": 3, "grpc": 3})
    assert judge_step(evidence(new, stable), POLICY).verdict == "pass"


def test_a_certain_failure_does_not_wait_for_the_end_of_the_step() -> None:
    slow = {"http": times(30) + 0.04, "grpc": times(30) + 0.04}
    found = judge_step(evidence(sample(2, 30, latencies=slow), seconds=2.0, skew=None), POLICY)
    assert found.verdict == "fail"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"seconds": 5.9}, "of 6 s seen"),
        ({"skew": None}, "offline"),
        ({"skew": Skew(0, 0.0)}, "no live scores"),
        ({"skew": Skew(9, NAN, not_computed="xgboost is not installed")}, "xgboost is not"),
        ({"new": sample(2, 24)}, "24 of 25 grpc requests"),
        ({"new": Sample(2, {"http": times(30)})}, "0 of 25 grpc"),
        ({"new": Sample(2), "stable": Sample(1)}, "no traffic"),
    ],
)
def test_the_reason_says_what_a_step_still_waits_for(changes: dict[str, Any], reason: str) -> None:
    found = judge_step(evidence(**{"new": sample(2, 30), **changes}), POLICY)
    assert found.verdict == "inconclusive"
    assert reason in found.reason


def test_a_step_does_not_wait_for_a_protocol_that_is_hardly_used() -> None:
    stable = Sample(1, {"http": times(300), "grpc": times(3)})
    assert protocols_in_use(stable) == {"http"}
    new = Sample(2, {"http": times(30)})
    assert judge_step(evidence(new, stable), POLICY).verdict == "pass"


@pytest.mark.parametrize("difference", [1e-4, float("nan"), float("inf")])
def test_a_live_score_that_differs_from_the_offline_score_fails(difference: float) -> None:
    found = judge_step(evidence(sample(2, 30), skew=Skew(100, difference)), POLICY)
    assert found.verdict == "fail"


def test_a_shift_fails_only_if_it_grossly_contradicts_the_gate() -> None:
    random = np.random.default_rng(0)

    def judged(mean: float, gate: float) -> str:
        new = sample(2, 60, scores={"p": random.normal(mean, 0.1, 60)})
        stable = sample(1, 270, scores={"p": random.normal(0.2, 0.1, 270)})
        return judge_step(evidence(new, stable, gate_shift={"p": gate}), POLICY).verdict

    assert judged(0.6, 0.4) == "pass"  # a good retraining does that
    assert judged(0.6, 0.35) == "pass"
    assert judged(0.6, -0.1) == "fail"
    assert judged(float("nan"), 0.0) == "fail"


def test_each_score_is_compared_with_its_own_shift() -> None:
    random = np.random.default_rng(0)
    usual = {"p": random.normal(0.2, 0.1, 500), "normality": random.normal(0.1, 0.05, 500)}
    moved = {**usual, "normality": usual["normality"] - 0.2}

    def verdict(scores: dict[str, Any], gate: dict[str, float]) -> str:
        new, stable = sample(2, 100, scores=scores), sample(1, 270, scores=usual)
        return judge_step(evidence(new, stable, gate_shift=gate), POLICY).verdict

    assert verdict(usual, {"p": 0.0, "normality": 0.0}) == "pass"
    assert verdict(moved, {"p": 0.0, "normality": 0.0}) == "fail"
    assert verdict(moved, {"p": 0.0, "normality": -0.2}) == "pass"


def test_labels_decide_if_there_are_enough() -> None:
    random = np.random.default_rng(0)

    def labelled(n: int, separation: float) -> Any:
        truth = np.arange(n) % 2
        return Labelled(truth * 1.0, {"p": random.normal(truth * separation, 1)})

    def judged(n: int, mine: float, theirs: float) -> str:
        new = sample(2, 30, labelled={"p": labelled(n, mine)})
        stable = sample(1, 270, labelled={"p": labelled(n, theirs)})
        return judge_step(evidence(new, stable), POLICY).verdict

    assert judged(400, 0.0, 4.0) == "fail"
    assert judged(400, 2.0, 2.0) == "pass"
    assert judged(40, 0.0, 4.0) == "pass"  # too few to tell


def test_the_labels_of_each_truth_decide() -> None:
    random = np.random.default_rng(0)
    truth = np.arange(400) % 2
    failed = Labelled(truth * 1.0, {"p": random.normal(truth * 2.0, 1)})

    def judged(error: float) -> Judgement:
        hours = random.uniform(0, 100, 400)
        lives = [Labelled(hours, {"life": hours + random.normal(0, x, 400)}) for x in (error, 5.0)]
        new, stable = (sample(v, 300, labelled={"p": failed}) for v in (2, 1))
        new, stable = (
            msgspec.structs.replace(one, labelled={"p": failed, "life": life})
            for one, life in zip((new, stable), lives, strict=True)
        )
        return judge_step(evidence(new, stable, tasks=(FAILED, RUL)), POLICY)

    assert judged(5.0).verdict == "pass"
    worse = judged(20.0)
    assert worse.verdict == "fail"
    assert worse.reason.startswith("quality rul: ")
    assert worse.observations["ROC AUC failed"]["labels"] == 400


def test_a_version_without_a_truth_is_judged_by_its_scores() -> None:
    random = np.random.default_rng(0)

    def judged(moved: float) -> Judgement:
        new, stable = (
            sample(version, 300, scores={"normality": random.normal(mean, 1.0, 400)})
            for version, mean in ((2, moved), (1, 0.0))
        )
        gate_shift = {"normality": 0.1}
        return judge_step(evidence(new, stable, tasks=(), gate_shift=gate_shift), POLICY)

    assert judged(0.1).verdict == "pass"
    assert judged(3.0).verdict == "fail"
    assert "quality" not in judged(0.1).reason


def test_the_watch_fails_only_beyond_twice_the_limits() -> None:
    def judged(median: float) -> str:
        new = Sample(2, {"http": times(300, median)})
        return judge_watch(evidence(new, seconds=3.0, skew=None), POLICY).verdict

    assert judged(0.002) == "inconclusive"  # not over yet
    assert judged(0.018) == "inconclusive"
    assert judged(0.040) == "fail"


def test_a_promoted_version_without_requests_passes_only_if_there_were_none_before() -> None:
    unheard = Evidence(new=Sample(2), stable=sample(1, 270), seconds=8.0)
    assert judge_watch(unheard, POLICY).verdict == "inconclusive"
    no_requests = Evidence(new=Sample(2), stable=Sample(1), seconds=8.0)
    assert judge_watch(no_requests, POLICY).verdict == "pass"


latencies = st.dictionaries(
    st.sampled_from(["http", "grpc"]),
    arrays(np.float64, st.integers(0, 40), elements=st.floats(0, 10)),
)
samples = st.builds(
    Sample,
    version=st.just(1),
    latencies=latencies,
    errors=st.dictionaries(st.sampled_from(["http", "grpc"]), st.integers(0, 40)),
    scores=st.dictionaries(
        st.just("p"),
        arrays(
            np.float64,
            st.integers(0, 40),
            elements=st.sampled_from([0.0, 0.5, 1e308, -1e308, math.nan, math.inf]),
        ),
    ),
)


@settings(max_examples=60, deadline=None)
@given(new=samples, stable=samples, seconds=st.floats(0, 10))
def test_any_evidence_has_a_verdict_and_numbers_that_are_json(
    new: Sample, stable: Sample, seconds: float
) -> None:
    found = Evidence(new, stable, seconds, Skew(1, 0.0), {"p": 0.1})
    for judged in (judge_step(found, POLICY), judge_watch(found, POLICY)):
        assert judged.verdict in ("pass", "fail", "inconclusive")
        assert judged.reason
        msgspec.json.encode(judged)


def noisy_step(random: np.random.Generator, slow: float) -> str:
    """Play a step at 10 % on a machine that stalls, with a look every half second."""
    arrival = np.sort(random.uniform(0, 60, random.poisson(100 * 60)))
    latency = random.lognormal(np.log(0.002), 0.4, len(arrival))
    latency += (random.random(len(arrival)) < 0.08) * random.exponential(0.03, len(arrival))
    for stall in random.uniform(0, 60, random.poisson(6)):
        hit = (arrival >= stall) & (arrival < stall + random.exponential(1.0))
        latency[hit] += random.exponential(0.02, hit.sum())
    canary, http = random.random((2, len(arrival))) < [[0.1], [0.5]]
    latency[canary] += slow
    for until in np.arange(0.5, 58, 0.5):
        seen = arrival < until
        new, stable = (
            Sample(v, {"http": latency[seen & of & http], "grpc": latency[seen & of & ~http]})
            for v, of in ((2, canary), (1, ~canary))
        )
        skew = SAME if until >= POLICY.step_seconds else None
        verdict = judge_step(Evidence(new, stable, until, skew), POLICY).verdict
        if verdict != "inconclusive":
            return verdict
    return "inconclusive"


@pytest.mark.parametrize(("slow", "verdict"), [(0.0, "pass"), (0.04, "fail")])
def test_a_noisy_machine_does_not_change_the_verdict(slow: float, verdict: str) -> None:
    random = np.random.default_rng(11)
    assert {noisy_step(random, slow) for _ in range(300)} == {verdict}
