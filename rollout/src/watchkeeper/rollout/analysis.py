"""From evidence to a verdict. All functions are pure.

A step or a watch **fails** if a check fails: it is certain that the version violates the policy. It
**passes** if enough was observed and no check objects. Otherwise it is **inconclusive** and
continues. :mod:`watchkeeper.rollout.checks` has the checks.
"""

from typing import Final

from watchkeeper.core.policies import RolloutPolicy
from watchkeeper.rollout.checks import run_checks
from watchkeeper.rollout.evidence import Evidence, Judgement, Sample

IN_USE: Final = 0.05  # a protocol is in use from this share of stable's requests


def judge_step(evidence: Evidence, policy: RolloutPolicy) -> Judgement:
    """Judge a canary step: stable and canary at the same time."""
    results = run_checks(evidence, policy, "step")
    return _summarize(results, _missing_in_step(evidence, policy), evidence)


def judge_watch(evidence: Evidence, policy: RolloutPolicy) -> Judgement:
    """Judge a promoted version against the window before its promotion."""
    results = run_checks(evidence, policy, "watch")
    missing = _missing_in_watch(evidence, policy)
    if not missing:  # the watch is over: a version that did not fail stays
        results = [r for r in results if r.verdict != "inconclusive"]
    return _summarize(results, missing, evidence)


def protocols_in_use(stable: Sample) -> set[str]:
    """Return the protocols in which a canary must answer requests before a step passes."""
    total = sum(stable.requests(p) for p in stable.protocols)
    return {p for p in stable.protocols if stable.requests(p) >= max(1.0, IN_USE * total)}


def _missing_in_step(evidence: Evidence, policy: RolloutPolicy) -> str:
    """Return what must still be observed in a step; "" if nothing is missing."""
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
        return _seconds_seen(evidence, policy.step_seconds)
    return "" if evidence.skew is not None else "not yet compared with the offline prediction"


def _missing_in_watch(evidence: Evidence, policy: RolloutPolicy) -> str:
    """Return what must still be observed in a watch; "" if nothing is missing."""
    if evidence.seconds < policy.watch_seconds:
        return _seconds_seen(evidence, policy.watch_seconds)
    if not evidence.new.protocols and evidence.stable.protocols:
        return "no request since the promotion, and there were some before"
    return ""


def _seconds_seen(evidence: Evidence, seconds: float) -> str:
    return f"{max(0.0, evidence.seconds):.0f} of {seconds:g} s seen"


def _summarize(results: list[Judgement], missing: str, evidence: Evidence) -> Judgement:
    observations = {k: v for result in results for k, v in result.observations.items()}
    observations["seconds"] = round(evidence.seconds, 3)
    failed = [r.reason for r in results if r.verdict == "fail"]
    if failed:
        return Judgement("fail", "; ".join(failed), observations)
    undecided = [r.reason for r in results if r.verdict == "inconclusive"]
    if missing or undecided:
        reasons = [missing, *undecided] if missing else undecided
        return Judgement("inconclusive", "; ".join(reasons), observations)
    requests = sum(evidence.new.requests(p) for p in evidence.new.protocols)
    return Judgement("pass", f"{requests} requests, no check failed", observations)
