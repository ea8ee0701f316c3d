"""What all checks have in common: their interface, and the significance budget.

The controller looks at the evidence every turn, so the looks need a common budget. A look at n
observations has the level ALPHA / (n·(n+1)), and these levels add up to ALPHA over all n. All
comparisons of all checks share the level of a look equally, and so do the bounds of one comparison.
An early look may therefore fail a step at any time, and all looks of a step together fail a version
that is within the policy with a probability of at most ALPHA.
"""

from typing import Final, Literal, Protocol, get_args

import msgspec

from watchkeeper.core.policies import RolloutPolicy
from watchkeeper.core.record import Protocol as RequestProtocol
from watchkeeper.rollout.evidence import Evidence, Judgement

Stage = Literal["step", "watch"]

ALPHA: Final = 0.01  # the probability that a step fails a version that is within the policy
PROTOCOLS: Final[tuple[str, ...]] = get_args(RequestProtocol)


class Look(msgspec.Struct, frozen=True):
    """One look at the evidence, in the sense of sequential tests.

    Attributes:
        evidence: the new version and the version that it is compared with.
        policy: the limits.
        stage: "step" for a canary step, "watch" for the watch after the promotion.
        comparisons: the number of comparisons that share the budget.
    """

    evidence: Evidence
    policy: RolloutPolicy
    stage: Stage
    comparisons: int

    def level(self, observations: int, bounds: int) -> float:
        """Return the significance level of one bound.

        Args:
            observations: the number of observations of both versions that the comparison uses.
            bounds: the number of bounds that it uses.
        """
        return ALPHA / (self.comparisons * bounds * observations * (observations + 1))


class Check(Protocol):
    """One check: it says whether the new version is within the policy in one respect."""

    def comparisons(self, policy: RolloutPolicy) -> int:
        """Return the largest number of statistical comparisons that the check makes in one look.

        The number must not depend on the evidence: it divides the budget, and the looks of a step
        must divide it in the same way. A check without uncertainty returns 0.
        """

    def run(self, look: Look) -> list[Judgement]:
        """Return one result per comparison; an empty list if there is nothing to compare.

        A comparison *fails* if it is certain, at ``look.level(...)``, that the policy is violated.
        It is *inconclusive* while something points to a violation, and it *passes* otherwise. The
        reason starts with the name of the comparison; ``observations`` has its numbers under this
        name, as plain values for JSON.
        """
