"""Bounds against numbers worked out by hand, and verdicts for versions that are good or bad."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from watchkeeper.contracts.policies import RolloutPolicy
from watchkeeper.rollout.analysis import (
    ALPHA,
    CHECKS,
    judge_step,
    judge_watch,
    level,
    protocols_in_use,
)
from watchkeeper.rollout.evidence import Evidence, Sample, Skew
from watchkeeper.rollout.intervals import (
    auc,
    quantile,
    quantile_above,
    quantile_below,
    rate_above,
    rate_below,
)

POLICY = RolloutPolicy(step_seconds=6, minimum_requests=25, watch_seconds=8)
SAME = Skew(100, 1e-8)


def times(n: int, median: float = 0.002, seed: int = 0) -> Any:
    return np.random.default_rng(seed).lognormal(np.log(median), 0.3, n)


def sample(version: int, n: int, **fields: Any) -> Sample:
    both = {"http": times(n, seed=version), "grpc": times(n, seed=version + 10)}
    return Sample(version, **{"latencies": both, **fields})


def evidence(new: Sample, stable: Sample | None = None, **fields: Any) -> Evidence:
    return Evidence(
        **{"new": new, "stable": stable or sample(1, 270), "seconds": 6.0, "skew": SAME, **fields}
    )


def test_no_error_of_ten_bounds_the_rate_by_one_minus_the_tenth_root() -> None:
    assert rate_below(0, 10, 0.05) == pytest.approx(1 - 0.05 ** (1 / 10))
    assert rate_above(10, 10, 0.05) == pytest.approx(0.05 ** (1 / 10))
    assert (rate_above(0, 10, 0.05), rate_below(10, 10, 0.05)) == (0.0, 1.0)
    # Clopper and Pearson for 3 of 20, both sides at 2.5 %
    assert rate_above(3, 20, 0.025) == pytest.approx(0.0321, abs=1e-4)
    assert rate_below(3, 20, 0.025) == pytest.approx(0.3789, abs=1e-4)


def test_ranks_of_the_bounds_are_those_of_the_binomial_distribution() -> None:
    rising = np.arange(1.0, 11.0)  # the value is its rank
    # P(at most 1 of 10 below the median) = 11/1024
    assert quantile_above(rising, 0.5, 11 / 1024) == 2
    assert quantile_above(rising, 0.5, 10.9 / 1024) == 1
    assert quantile_below(rising, 0.5, 11 / 1024) == 9
    assert quantile_above(rising, 0.5, 0.9 / 1024) is None
    assert quantile_below(rising, 0.9, 0.9**10) == 10
    assert quantile_below(rising, 0.9, 0.9**10 - 1e-9) is None
    assert quantile_above(np.array([]), 0.5, 0.5) is None
    assert (quantile(rising, 0.5), quantile(rising, 0.9), quantile(rising, 0.01)) == (5, 9, 1)


@pytest.mark.parametrize("q", [0.5, 0.9])
def test_the_bounds_of_a_quantile_hold_as_often_as_they_say(q: float) -> None:
    random = np.random.default_rng(3)
    truth = -math.log(1 - q)
    drawn = np.sort(random.exponential(1.0, (4000, 40)), axis=1)
    above = [quantile_above(row, q, 0.1) for row in drawn]
    below = [quantile_below(row, q, 0.1) for row in drawn]
    assert sum(b > truth for b in above if b is not None) / 4000 < 0.115
    assert sum(b < truth for b in below if b is not None) / 4000 < 0.115


def test_levels_of_all_looks_of_all_checks_add_up_to_alpha() -> None:
    total = sum(CHECKS * 2 * level(n, 2) for n in range(1, 200_000))
    assert total == pytest.approx(ALPHA, rel=1e-4)


def test_the_auc_counts_ordered_pairs_and_half_of_the_ties() -> None:
    value, variance = auc(np.array([3.0, 2.0]), np.array([1.0, 2.0]))
    assert value == (1 + 1 + 1 + 0.5) / 4
    assert variance > 0
    assert auc(np.ones(5), np.zeros(5)) == (1.0, pytest.approx(0.25 / 25))


def test_an_equal_version_passes() -> None:
    found = judge_step(evidence(sample(2, 30)), POLICY)
    assert found.verdict == "pass", found.reason
    assert found.observations["http errors"] == {"new": [0, 30], "stable": [0, 270]}


def test_a_slow_version_fails_by_a_number_that_can_be_read() -> None:
    slow = {"http": times(30) + 0.04, "grpc": times(30)}
    found = judge_step(evidence(sample(2, 30, latencies=slow)), POLICY)
    assert found.verdict == "fail"
    assert "http latency at 0.5: 41.9 ms, stable 2.0 ms" in found.reason
    assert "grpc" not in found.reason


def test_slower_but_below_the_floor_is_no_failure() -> None:
    slower = {"http": times(300) + 0.006, "grpc": times(300)}
    assert judge_step(evidence(sample(2, 300, latencies=slower)), POLICY).verdict == "pass"


def test_a_few_slow_answers_prove_nothing_and_are_not_passed_either() -> None:
    few = {"http": times(5) + 0.04, "grpc": times(30)}
    assert judge_step(evidence(sample(2, 5, latencies=few)), POLICY).verdict == "inconclusive"
    some = {"http": np.append(times(22), np.full(8, 0.05)), "grpc": times(30)}
    found = judge_step(evidence(sample(2, 30, latencies=some)), POLICY)
    assert (found.verdict, "latency at 0.9" in found.reason) == ("inconclusive", True)


def test_errors_fail_once_they_are_certainly_more_than_stables() -> None:
    def judged(failed: int, answered: int) -> str:
        new = sample(2, answered, errors={"http": failed})
        return judge_step(evidence(new), POLICY).verdict

    assert judged(0, 30) == "pass"
    assert judged(1, 30) == "inconclusive"
    assert judged(1, 300) == "pass"
    assert judged(25, 30) == "fail"
    assert judged(25, 0) == "fail"


def test_errors_that_both_have_are_nobodys() -> None:
    stable = sample(1, 270, errors={"http": 30, "grpc": 30})
    new = sample(2, 30, errors={"http": 3, "grpc": 3})
    assert judge_step(evidence(new, stable), POLICY).verdict == "pass"


def test_a_certain_failure_does_not_wait_for_the_end_of_the_step() -> None:
    slow = {"http": times(30) + 0.04, "grpc": times(30) + 0.04}
    found = judge_step(evidence(sample(2, 30, latencies=slow), seconds=2.0, skew=None), POLICY)
    assert found.verdict == "fail"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seconds": 5.9}, "of 6 s seen"),
        ({"skew": None}, "offline"),
        ({"skew": Skew(0, 0.0)}, "no live scores"),
        ({"new": sample(2, 24)}, "24 of 25 grpc requests"),
        ({"new": Sample(2, {"http": times(30)})}, "0 of 25 grpc"),
        ({"new": Sample(2), "stable": Sample(1)}, "no traffic"),
    ],
)
def test_what_a_step_still_lacks_is_said(changes: dict[str, Any], said: str) -> None:
    found = judge_step(evidence(**{"new": sample(2, 30), **changes}), POLICY)
    assert found.verdict == "inconclusive"
    assert said in found.reason


def test_a_protocol_that_hardly_anybody_uses_is_not_waited_for() -> None:
    stable = Sample(1, {"http": times(300), "grpc": times(3)})
    assert protocols_in_use(stable) == {"http"}
    new = Sample(2, {"http": times(30)})
    assert judge_step(evidence(new, stable), POLICY).verdict == "pass"


@pytest.mark.parametrize("difference", [1e-4, float("nan"), float("inf")])
def test_a_live_score_that_is_not_the_offline_one_fails(difference: float) -> None:
    found = judge_step(evidence(sample(2, 30), skew=Skew(100, difference)), POLICY)
    assert found.verdict == "fail"


def test_a_shift_is_held_against_what_the_gate_measured_and_only_grossly() -> None:
    random = np.random.default_rng(0)

    def judged(mean: float, gate: float) -> str:
        new = sample(2, 60, scores={"p": random.normal(mean, 0.1, 60)})
        stable = sample(1, 270, scores={"p": random.normal(0.2, 0.1, 270)})
        return judge_step(evidence(new, stable, gate_shift={"p": gate}), POLICY).verdict

    assert judged(0.6, 0.4) == "pass"  # a good retraining does that
    assert judged(0.6, 0.35) == "pass"
    assert judged(0.6, -0.1) == "fail"
    assert judged(float("nan"), 0.0) == "fail"


def test_each_of_several_scores_is_held_against_its_own_shift() -> None:
    random = np.random.default_rng(0)
    usual = {"p": random.normal(0.2, 0.1, 500), "normality": random.normal(0.1, 0.05, 500)}
    moved = {**usual, "normality": usual["normality"] - 0.2}

    def verdict(scores: dict[str, Any], gate: dict[str, float]) -> str:
        new, stable = sample(2, 100, scores=scores), sample(1, 270, scores=usual)
        return judge_step(evidence(new, stable, gate_shift=gate), POLICY).verdict

    assert verdict(usual, {"p": 0.0, "normality": 0.0}) == "pass"
    assert verdict(moved, {"p": 0.0, "normality": 0.0}) == "fail"
    assert verdict(moved, {"p": 0.0, "normality": -0.2}) == "pass"


def test_labels_decide_where_there_are_enough_of_them() -> None:
    random = np.random.default_rng(0)

    def labelled(n: int, separation: float) -> Any:
        truth = np.arange(n) % 2
        return np.column_stack([random.normal(truth * separation, 1), truth])

    def judged(n: int, mine: float, theirs: float) -> str:
        new = sample(2, 30, labelled=labelled(n, mine))
        stable = sample(1, 270, labelled=labelled(n, theirs))
        return judge_step(evidence(new, stable), POLICY).verdict

    assert judged(400, 0.0, 4.0) == "fail"
    assert judged(400, 2.0, 2.0) == "pass"
    assert judged(40, 0.0, 4.0) == "pass"  # too few to tell


def test_the_watch_acts_only_on_twice_the_limits() -> None:
    def judged(median: float) -> str:
        new = Sample(2, {"http": times(300, median)})
        return judge_watch(evidence(new, seconds=3.0, skew=None), POLICY).verdict

    assert judged(0.002) == "inconclusive"  # not over yet
    assert judged(0.018) == "inconclusive"
    assert judged(0.040) == "fail"


def test_a_promoted_version_that_nobody_reaches_is_not_approved() -> None:
    unheard = Evidence(new=Sample(2), stable=sample(1, 270), seconds=8.0)
    assert judge_watch(unheard, POLICY).verdict == "inconclusive"
    nobody_asks = Evidence(new=Sample(2), stable=Sample(1), seconds=8.0)
    assert judge_watch(nobody_asks, POLICY).verdict == "pass"


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
def test_any_evidence_has_a_verdict_and_numbers_that_can_be_stored(
    new: Sample, stable: Sample, seconds: float
) -> None:
    found = Evidence(new, stable, seconds, Skew(1, 0.0), {"p": 0.1})
    for judged in (judge_step(found, POLICY), judge_watch(found, POLICY)):
        assert judged.verdict in ("pass", "fail", "inconclusive")
        assert judged.reason
        msgspec.json.encode(judged)


def noisy_step(random: np.random.Generator, slow: float) -> str:
    """Play a step at 10 % on a machine that stalls: looks every half second, 1.5 s behind."""
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
def test_a_noisy_machine_changes_no_verdict(slow: float, verdict: str) -> None:
    random = np.random.default_rng(11)
    assert {noisy_step(random, slow) for _ in range(300)} == {verdict}
