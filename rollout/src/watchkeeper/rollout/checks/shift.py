"""Shift: the difference of the mean scores, against the difference that the gate measured."""

from statistics import NormalDist
from typing import Final

import numpy as np

from watchkeeper.core.policies import RolloutPolicy
from watchkeeper.rollout.checks.base import Look
from watchkeeper.rollout.evidence import Judgement

MINIMUM_SCORES: Final = 30  # rows of each version
GROSS_SHIFT: Final = 1.0  # in standard deviations of the scores


class Shift:
    """The live shift of a score must not grossly contradict the gate.

    A good new version may shift the scores, as the gate has measured on recent rows. Only a live
    shift that differs from that by more than :data:`GROSS_SHIFT` fails.
    """

    def comparisons(self, policy: RolloutPolicy) -> int:  # noqa: ARG002
        """One: the scores of a version share it."""
        return 1

    def run(self, look: Look) -> list[Judgement]:
        """Compare each score that the gate has measured."""
        return [self._compare(look, score) for score in look.evidence.gate_shift]

    def _compare(self, look: Look, score: str) -> Judgement:
        name = f"shift of {score}"
        measured, scores = look.evidence.gate_shift[score], len(look.evidence.gate_shift)
        new, stable = look.evidence.new.scores.get(score), look.evidence.stable.scores.get(score)
        if new is None or stable is None or min(len(new), len(stable)) < MINIMUM_SCORES:
            return Judgement("pass", f"{name}: too few scores to tell")
        with np.errstate(all="ignore"):  # an overflow gives NaN, and NaN fails
            live = float(new.mean() - stable.mean())
            spread = float(max(new.std(), stable.std()))
            error = float(np.sqrt(new.var() / len(new) + stable.var() / len(stable)))
        level = look.level(len(new) + len(stable), bounds=2 * scores)
        z = NormalDist().inv_cdf(1 - level)
        reason = f"{name}: {live:+.3f} live, {measured:+.3f} at the gate"
        numbers = {name: {"live": live, "gate": measured}}
        within = abs(live - measured) - z * error <= GROSS_SHIFT * spread + 1e-9
        return Judgement("pass" if within else "fail", reason, numbers)
