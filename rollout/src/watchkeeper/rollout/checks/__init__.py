"""The checks of a canary step and of the watch. Each check is a small class in its own module.

To add a check, write a module with a class that has the methods of
:class:`~watchkeeper.rollout.checks.base.Check`, and add an instance to :data:`CHECKS`. The share of
the significance budget that each comparison gets follows from the list.
"""

from typing import Final

from watchkeeper.core.policies import RolloutPolicy
from watchkeeper.rollout.checks.base import Check, Look, Stage
from watchkeeper.rollout.checks.errors import Errors
from watchkeeper.rollout.checks.latency import Latency
from watchkeeper.rollout.checks.quality import Quality
from watchkeeper.rollout.checks.shift import Shift
from watchkeeper.rollout.checks.skew import OfflineSkew
from watchkeeper.rollout.evidence import Evidence, Judgement

CHECKS: Final[tuple[Check, ...]] = (
    Errors(),
    Latency(),
    OfflineSkew(),
    Shift(),
    Quality(),
)


def run_checks(evidence: Evidence, policy: RolloutPolicy, stage: Stage) -> list[Judgement]:
    """Return the results of all checks, in the order of :data:`CHECKS`.

    Args:
        evidence: what to judge.
        policy: the limits.
        stage: whether the evidence is about a canary step or about the watch.
    """
    look = Look(evidence, policy, stage, count_comparisons(policy))
    return [result for check in CHECKS for result in check.run(look)]


def count_comparisons(policy: RolloutPolicy) -> int:
    """Return the number of statistical comparisons that share the budget of a step."""
    return sum(check.comparisons(policy) for check in CHECKS)
