"""Quality: the ROC AUC of both versions, where labels have arrived."""

from statistics import NormalDist
from typing import Final

from watchkeeper.core.labels import NEGATIVE, POSITIVE
from watchkeeper.core.policies import RolloutPolicy
from watchkeeper.core.statistics import roc_auc
from watchkeeper.rollout.checks.base import Look
from watchkeeper.rollout.evidence import Judgement

MINIMUM_CLASS: Final = 25  # labels of each class, for each version


class Quality:
    """The new ROC AUC may be below the stable one by ``quality_margin``.

    Labels are often late, so too few labels pass.
    """

    def comparisons(self, policy: RolloutPolicy) -> int:  # noqa: ARG002
        """One."""
        return 1

    def run(self, look: Look) -> list[Judgement]:
        """Compare the judged score of both versions."""
        estimates = []
        for sample in (look.evidence.new, look.evidence.stable):
            score, label = sample.labelled[:, 0], sample.labelled[:, 1]
            positives, negatives = score[label == POSITIVE], score[label == NEGATIVE]
            if min(len(positives), len(negatives)) < MINIMUM_CLASS:
                return [Judgement("pass", "quality: too few labels to tell")]
            estimates.append(roc_auc(positives, negatives))
        (new, variance), (stable, stable_variance) = estimates
        labels = len(look.evidence.new.labelled)
        level = look.level(labels + len(look.evidence.stable.labelled), bounds=1)
        error = NormalDist().inv_cdf(1 - level) * (variance + stable_variance) ** 0.5
        certain = stable - new - error
        reason = f"quality: ROC AUC {new:.3f}, stable {stable:.3f}"
        numbers = {"ROC AUC": {"new": new, "stable": stable, "labels": labels}}
        if not certain <= look.policy.quality_margin:  # NaN fails
            return [Judgement("fail", f"{reason}: certainly worse by {certain:.3f}", numbers)]
        return [Judgement("pass", reason, numbers)]
