"""Quality: the metric of each task, for both versions, where labels have arrived."""

from statistics import NormalDist

from watchkeeper.core.policies import RolloutPolicy
from watchkeeper.core.tasks.base import Task
from watchkeeper.rollout.checks.base import Look
from watchkeeper.rollout.evidence import Judgement


class Quality:
    """The new version may be worse than the stable one by ``quality_margin``, in each truth.

    The task of a head compares them, see :mod:`watchkeeper.core.tasks`. Labels are often late, so
    too few labels pass.
    """

    def comparisons(self, policy: RolloutPolicy) -> int:  # noqa: ARG002
        """One, which the heads of a version share."""
        return 1

    def run(self, look: Look) -> list[Judgement]:
        """Compare the labelled rows of both versions, head by head."""
        return [_judge(task, look) for task in look.evidence.tasks]


def _judge(task: Task, look: Look) -> Judgement:
    evidence, score = look.evidence, task.head.score
    # A version with one truth needs no name of it.
    about = "" if len(evidence.tasks) == 1 else f" {task.head.label}"
    name = f"quality{about}"
    few = Judgement("pass", f"{name}: too few labels to tell")
    new, stable = evidence.new.labelled.get(score), evidence.stable.labelled.get(score)
    if new is None or stable is None:
        return few
    found = task.unpaired(new, stable)
    if found is None:
        return few
    level = look.level(len(new) + len(stable), bounds=len(evidence.tasks))
    certain = -found.value - NormalDist().inv_cdf(1 - level) * found.variance**0.5
    reason = f"{name}: {task.quality} {found.new:.3g}, stable {found.old:.3g}"
    numbers = {
        f"{task.quality}{about}": {"new": found.new, "stable": found.old, "labels": len(new)}
    }
    if not certain <= look.policy.quality_margin:  # NaN fails
        return Judgement("fail", f"{reason}: certainly worse by {certain:.3f}", numbers)
    return Judgement("pass", reason, numbers)
