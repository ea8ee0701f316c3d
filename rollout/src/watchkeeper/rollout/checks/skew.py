"""Skew: live scores against the version's own offline prediction."""

from watchkeeper.core.policies import RolloutPolicy
from watchkeeper.rollout.checks.base import Look
from watchkeeper.rollout.evidence import Judgement


class OfflineSkew:
    """A live score may differ from the offline prediction by ``score_tolerance``.

    The two are the same computation, so this check has no uncertainty.
    """

    def comparisons(self, policy: RolloutPolicy) -> int:  # noqa: ARG002
        """None is statistical."""
        return 0

    def run(self, look: Look) -> list[Judgement]:
        """Judge the skew, once it is computed."""
        skew, tolerance = look.evidence.skew, look.policy.score_tolerance
        if skew is None:
            return []
        numbers = {"skew": {"rows": skew.rows, "largest": skew.largest}}
        if skew.error:
            return [Judgement("fail", f"skew: no offline prediction: {skew.error}", numbers)]
        if skew.not_computed:
            return [Judgement("inconclusive", f"skew: {skew.not_computed}", numbers)]
        if not skew.rows:
            return [Judgement("inconclusive", "skew: no live scores to compare", numbers)]
        reason = f"skew: live scores up to {skew.largest:.2g} from offline in {skew.rows} rows"
        if not skew.largest <= tolerance:  # NaN fails
            return [Judgement("fail", f"{reason}, allowed {tolerance:g}", numbers)]
        return [Judgement("pass", reason, numbers)]
