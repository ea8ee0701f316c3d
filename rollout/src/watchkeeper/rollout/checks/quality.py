"""Quality: the metric of the task, for both versions, where labels have arrived."""

from statistics import NormalDist

from watchkeeper.core.policies import RolloutPolicy
from watchkeeper.rollout.checks.base import Look
from watchkeeper.rollout.evidence import Judgement


class Quality:
    """The new version may be worse than the stable one by ``quality_margin``.

    The task compares them, see :mod:`watchkeeper.core.tasks`. Labels are often late, so too few
    labels pass.
    """

    def comparisons(self, policy: RolloutPolicy) -> int:  # noqa: ARG002
        """One."""
        return 1

    def run(self, look: Look) -> list[Judgement]:
        """Compare the labelled rows of both versions."""
        evidence, few = look.evidence, Judgement("pass", "quality: too few labels to tell")
        task, new, stable = evidence.task, evidence.new.labelled, evidence.stable.labelled
        if task is None or new is None or stable is None:
            return [few]
        found = task.unpaired(new, stable)
        if found is None:
            return [few]
        level = look.level(len(new) + len(stable), bounds=1)
        certain = -found.value - NormalDist().inv_cdf(1 - level) * found.variance**0.5
        reason = f"quality: {task.quality} {found.new:.3g}, stable {found.old:.3g}"
        numbers = {task.quality: {"new": found.new, "stable": found.old, "labels": len(new)}}
        if not certain <= look.policy.quality_margin:  # NaN fails
            return [Judgement("fail", f"{reason}: certainly worse by {certain:.3f}", numbers)]
        return [Judgement("pass", reason, numbers)]
