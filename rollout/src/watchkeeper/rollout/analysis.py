"""From observations to a verdict; pure functions.

A step **fails** only on certainty: the bounds of both versions, taken at a level that covers all
looks together, contradict the policy. It **passes** once enough was seen and nothing points
against it. Between the two it is **inconclusive** and goes on.

Looks are taken every turn, so the level of one falls with the n requests in sight:
ALPHA/(n·(n+1)), which adds up to ALPHA over every n there can be; divided by the number of
checks, and of bounds in a check. Hence an early look may fail a step at any time, and all looks
of a step together fail a version that is within the policy with a probability of at most ALPHA.
Stable and canary share machine and minute, and chance deals the requests out, so that a noisy
minute hits both alike.
"""

from statistics import NormalDist

import numpy as np

from watchkeeper.contracts.policies import RolloutPolicy
from watchkeeper.rollout.evidence import Evidence, Judgement, Result, Sample, Skew
from watchkeeper.rollout.intervals import (
    auc,
    quantile,
    quantile_above,
    quantile_below,
    rate_above,
    rate_below,
)

ALPHA = 0.01  # of a step: failing a version that is within the policy
CHECKS = 8  # errors and two quantiles, each over two protocols; shift; quality
SUSPICION = 0.2  # at this level a latency that looks too long is not passed yet
IN_USE = 0.05  # a protocol is in use from this share of stable's requests on
MINIMUM_SCORES = 30
MINIMUM_CLASS = 25  # labels of each class, for each version
GROSS_SHIFT = 1.0  # standard deviations of the scores
WATCH_SLACK = 2.0  # before and after differ by load and neighbours too: limits times this


def judge_step(evidence: Evidence, policy: RolloutPolicy) -> Judgement:
    """Judge a traffic step: stable and canary side by side."""
    new, stable = evidence.new, evidence.stable
    checks = [_errors(new, stable, p, policy) for p in sorted(new.protocols)]
    for protocol in sorted(_timed(new, stable)):
        checks += [
            _latency(
                new, stable, protocol, q, ratio=policy.latency_ratio, floor=policy.latency_floor
            )
            for q in sorted({0.5, policy.latency_quantile})
        ]
    if evidence.skew is not None:
        checks.append(_skew(evidence.skew, policy))
    among = len(evidence.gate_shift)
    checks += [
        _shift(new, stable, score, measured, among)
        for score, measured in evidence.gate_shift.items()
    ]
    checks.append(_quality(new, stable, policy))
    return _sum_up(checks, _missing_in_step(evidence, policy), evidence)


def judge_watch(evidence: Evidence, policy: RolloutPolicy) -> Judgement:
    """Judge a promoted version against the window that was frozen before its promotion."""
    new, stable = evidence.new, evidence.stable
    checks = [_errors(new, stable, p, policy) for p in sorted(new.protocols & stable.protocols)]
    checks += [
        _latency(
            new,
            stable,
            protocol,
            0.5,
            ratio=WATCH_SLACK * policy.latency_ratio,
            floor=WATCH_SLACK * policy.latency_floor,
        )
        for protocol in sorted(_timed(new, stable))
    ]
    checks.append(_quality(new, stable, policy))
    missing = ""
    if evidence.seconds < policy.watch_seconds:
        missing = f"{max(0.0, evidence.seconds):.0f} of {policy.watch_seconds:g} s seen"
    elif not any(new.asked(p) for p in new.protocols) and any(
        stable.asked(p) for p in stable.protocols
    ):
        missing = "no request since the promotion, and there were some before"
    # Nothing is left to wait for once the watch is over: what is not bad by then stays.
    decided = [c for c in checks if missing or c.verdict != "inconclusive"]
    return _sum_up(decided, missing, evidence)


def protocols_in_use(stable: Sample) -> set[str]:
    """The protocols that a canary must be seen by."""
    total = sum(stable.asked(p) for p in stable.protocols)
    return {p for p in stable.protocols if stable.asked(p) >= max(1.0, IN_USE * total)}


def level(requests: int, bounds: int) -> float:
    """The level of one of the bounds of a check at a look that sees so many requests."""
    return ALPHA / (CHECKS * bounds * requests * (requests + 1))


def _errors(new: Sample, stable: Sample, protocol: str, policy: RolloutPolicy) -> Judgement:
    name = f"{protocol} errors"
    n, m = new.asked(protocol), stable.asked(protocol)
    failed, stable_failed = new.failed(protocol), stable.failed(protocol)
    numbers = {"new": [failed, n], "stable": [stable_failed, m]}
    if not m:
        verdict: Result = "inconclusive" if failed else "pass"
        return Judgement(verdict, f"{name}: {failed} of {n}, stable was not asked", {name: numbers})
    a = level(n + m, 2)
    certain = rate_above(failed, n, a) - rate_below(stable_failed, m, a)
    difference = failed / n - stable_failed / m
    said = f"{name}: {failed} of {n}, stable {stable_failed} of {m}"
    verdict = "pass"
    if certain > policy.error_margin:
        verdict, said = (
            "fail",
            f"{said}: certainly {certain:.1%} more, allowed {policy.error_margin:.1%}",
        )
    elif difference > policy.error_margin:
        verdict = "inconclusive"
    return Judgement(verdict, said, {name: numbers})


def _latency(
    new: Sample, stable: Sample, protocol: str, q: float, *, ratio: float, floor: float
) -> Judgement:
    """Compare a quantile: too long is above both ``ratio`` times stable's and ``floor`` s."""
    name = f"{protocol} latency at {q:g}"
    mine, theirs = np.sort(new.latencies[protocol]), np.sort(stable.latencies[protocol])
    at, stable_at = quantile(mine, q), quantile(theirs, q)
    numbers = {"new": at, "stable": stable_at, "n": [len(mine), len(theirs)]}
    said = f"{name}: {at * 1000:.1f} ms, stable {stable_at * 1000:.1f} ms"

    def too_long(a: float) -> bool:
        low, high = quantile_above(mine, q, a), quantile_below(theirs, q, a)
        return low is not None and high is not None and low > max(ratio * high, floor)

    verdict: Result = "pass"
    if too_long(level(len(mine) + len(theirs), 2)):
        verdict = "fail"
        said += f": certainly over {ratio:g} times that and over {floor * 1000:g} ms"
    elif too_long(SUSPICION / 2):
        verdict = "inconclusive"
    return Judgement(verdict, said, {name: numbers})


def _skew(skew: Skew, policy: RolloutPolicy) -> Judgement:
    numbers = {"skew": {"rows": skew.rows, "largest": skew.largest}}
    if skew.broken:
        return Judgement("fail", f"skew: it has no offline form: {skew.broken}", numbers)
    said = f"skew: live scores up to {skew.largest:.2g} from offline in {skew.rows} rows"
    if not skew.rows:
        return Judgement("inconclusive", "skew: no live scores to compare", numbers)
    if not skew.largest <= policy.score_tolerance:  # NaN is not a pass
        return Judgement("fail", f"{said}, allowed {policy.score_tolerance:g}", numbers)
    return Judgement("pass", said, numbers)


def _shift(new: Sample, stable: Sample, score: str, measured: float, among: int) -> Judgement:
    """Only a gross contradiction counts: a good retraining shifts the scores, as the gate saw.

    The ``among`` scores of a version share the level of one check.
    """
    name = f"shift of {score}"
    mine, theirs = new.scores.get(score), stable.scores.get(score)
    if mine is None or theirs is None or min(len(mine), len(theirs)) < MINIMUM_SCORES:
        return Judgement("pass", f"{name}: too few scores to tell")
    with np.errstate(all="ignore"):  # what overflows is no number, and that is no pass
        live = float(mine.mean() - theirs.mean())
        spread = float(max(mine.std(), theirs.std()))
        error = float(np.sqrt(mine.var() / len(mine) + theirs.var() / len(theirs)))
    z = NormalDist().inv_cdf(1 - level(len(mine) + len(theirs), 2 * among))
    said = f"{name}: {live:+.3f} live, {measured:+.3f} at the gate"
    numbers = {name: {"live": live, "gate": measured}}
    if not abs(live - measured) - z * error <= GROSS_SHIFT * spread + 1e-9:
        return Judgement("fail", said, numbers)
    return Judgement("pass", said, numbers)


def _quality(new: Sample, stable: Sample, policy: RolloutPolicy) -> Judgement:
    found = []
    for sample in (new, stable):
        positive = sample.labelled[:, 1] > 0
        classes = sample.labelled[positive, 0], sample.labelled[~positive, 0]
        if min(map(len, classes)) < MINIMUM_CLASS:
            return Judgement("pass", "quality: too few labels to tell")
        found.append(auc(*classes))
    (mine, variance), (theirs, stable_variance) = found
    a = level(len(new.labelled) + len(stable.labelled), 1)
    certain = theirs - mine - NormalDist().inv_cdf(1 - a) * (variance + stable_variance) ** 0.5
    said = f"quality: ROC AUC {mine:.3f}, stable {theirs:.3f}"
    numbers = {"ROC AUC": {"new": mine, "stable": theirs, "labels": len(new.labelled)}}
    if not certain <= policy.quality_margin:
        return Judgement("fail", f"{said}: certainly worse by {certain:.3f}", numbers)
    return Judgement("pass", said, numbers)


def _timed(new: Sample, stable: Sample) -> set[str]:
    return {p for p in new.protocols & stable.protocols if new.answered(p) and stable.answered(p)}


def _missing_in_step(evidence: Evidence, policy: RolloutPolicy) -> str:
    """Say what a step still lacks, or nothing."""
    used = sorted(protocols_in_use(evidence.stable))
    if not used:
        return "no traffic"
    few = [
        f"{evidence.new.answered(p)} of {policy.minimum_requests} {p} requests answered"
        for p in used
        if evidence.new.answered(p) < policy.minimum_requests
    ]
    if few:
        return ", ".join(few)
    if evidence.seconds < policy.step_seconds:
        return f"{max(0.0, evidence.seconds):.0f} of {policy.step_seconds:g} s seen"
    return "" if evidence.skew is not None else "not yet compared with the offline prediction"


def _sum_up(checks: list[Judgement], missing: str, evidence: Evidence) -> Judgement:
    observations = {k: v for check in checks for k, v in check.observations.items()}
    observations["seconds"] = round(evidence.seconds, 3)
    failed = [c.reason for c in checks if c.verdict == "fail"]
    if failed:
        return Judgement("fail", "; ".join(failed), observations)
    open_ = [c.reason for c in checks if c.verdict == "inconclusive"]
    if missing or open_:
        return Judgement("inconclusive", "; ".join([missing] * bool(missing) + open_), observations)
    asked = sum(evidence.new.asked(p) for p in evidence.new.protocols)
    return Judgement("pass", f"{asked} requests, nothing against it", observations)
