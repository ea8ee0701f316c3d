"""Errors: requests without an answer, per protocol."""

from watchkeeper.core.events import Verdict
from watchkeeper.core.policies import RolloutPolicy
from watchkeeper.rollout.checks.base import PROTOCOLS, Look
from watchkeeper.rollout.evidence import Judgement
from watchkeeper.rollout.intervals import rate_lower_bound, rate_upper_bound


class Errors:
    """The new error rate may exceed the stable one by ``error_margin``.

    The error rates are compared by their Clopper-Pearson bounds.
    """

    def comparisons(self, policy: RolloutPolicy) -> int:  # noqa: ARG002
        """One per protocol."""
        return len(PROTOCOLS)

    def run(self, look: Look) -> list[Judgement]:
        """Compare each protocol of the new version; in the watch, each that both versions had."""
        protocols = look.evidence.new.protocols
        if look.stage == "watch":
            protocols &= look.evidence.stable.protocols
        return [self._compare(look, protocol) for protocol in sorted(protocols)]

    def _compare(self, look: Look, protocol: str) -> Judgement:
        new, stable, margin = look.evidence.new, look.evidence.stable, look.policy.error_margin
        name = f"{protocol} errors"
        total, stable_total = new.requests(protocol), stable.requests(protocol)
        failed, stable_failed = new.failed(protocol), stable.failed(protocol)
        numbers = {name: {"new": [failed, total], "stable": [stable_failed, stable_total]}}
        if not stable_total:
            verdict: Verdict = "inconclusive" if failed else "pass"
            reason = f"{name}: {failed} of {total}, stable had no requests"
            return Judgement(verdict, reason, numbers)
        level = look.level(total + stable_total, bounds=2)
        certain = rate_lower_bound(failed, total, level)
        certain -= rate_upper_bound(stable_failed, stable_total, level)
        reason = f"{name}: {failed} of {total}, stable {stable_failed} of {stable_total}"
        if certain > margin:
            reason += f": certainly {certain:.1%} more, allowed {margin:.1%}"
            return Judgement("fail", reason, numbers)
        difference = failed / total - stable_failed / stable_total
        return Judgement("inconclusive" if difference > margin else "pass", reason, numbers)
