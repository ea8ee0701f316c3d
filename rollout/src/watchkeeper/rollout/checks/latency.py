"""Latency: quantiles of the time of an answer, per protocol."""

from typing import Final

import numpy as np

from watchkeeper.core.policies import RolloutPolicy
from watchkeeper.rollout.checks.base import PROTOCOLS, Look
from watchkeeper.rollout.evidence import Judgement
from watchkeeper.rollout.intervals import quantile, quantile_lower_bound, quantile_upper_bound

MEDIAN: Final = 0.5
SUSPICION: Final = 0.2  # a latency that looks too long at this level does not pass yet
WATCH_SLACK: Final = 2.0  # load and neighbours differ before and after: limits times this


class Latency:
    """A quantile is too long above both ``latency_ratio`` times stable's and ``latency_floor``.

    A step compares the median and ``latency_quantile``. Stable and canary share machine and time
    and requests are assigned by chance, so a noisy minute affects both. The watch compares
    different times, therefore only the median, at twice the limits.
    """

    def comparisons(self, policy: RolloutPolicy) -> int:
        """One per protocol and quantile."""
        return len(PROTOCOLS) * len(_quantiles(policy))

    def run(self, look: Look) -> list[Judgement]:
        """Compare each protocol in which both versions answered."""
        new, stable = look.evidence.new, look.evidence.stable
        quantiles = _quantiles(look.policy) if look.stage == "step" else [MEDIAN]
        return [
            self._compare(look, protocol, q)
            for protocol in sorted(new.protocols & stable.protocols)
            if new.answered(protocol) and stable.answered(protocol)
            for q in quantiles
        ]

    def _compare(self, look: Look, protocol: str, q: float) -> Judgement:
        slack = WATCH_SLACK if look.stage == "watch" else 1.0
        ratio, floor = slack * look.policy.latency_ratio, slack * look.policy.latency_floor
        new = np.sort(look.evidence.new.latencies[protocol])
        stable = np.sort(look.evidence.stable.latencies[protocol])

        def too_long(level: float) -> bool:
            low = quantile_lower_bound(new, q, level)
            high = quantile_upper_bound(stable, q, level)
            return low is not None and high is not None and low > max(ratio * high, floor)

        name = f"{protocol} latency at {q:g}"
        at, stable_at = quantile(new, q), quantile(stable, q)
        numbers = {name: {"new": at, "stable": stable_at, "n": [len(new), len(stable)]}}
        reason = f"{name}: {at * 1000:.1f} ms, stable {stable_at * 1000:.1f} ms"
        if too_long(look.level(len(new) + len(stable), bounds=2)):
            reason += f": certainly over {ratio:g} times that and over {floor * 1000:g} ms"
            return Judgement("fail", reason, numbers)
        return Judgement("inconclusive" if too_long(SUSPICION / 2) else "pass", reason, numbers)


def _quantiles(policy: RolloutPolicy) -> list[float]:
    return sorted({MEDIAN, policy.latency_quantile})
