"""The gate: the checks on held-out rows that make a version the candidate.

Pure functions: from scores and truth to checks.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.core.estimates import UNDEFINED, Estimate, mean, normal
from watchkeeper.core.gate_report import Check, RowsKind, Shift
from watchkeeper.core.signature import Signature
from watchkeeper.core.tasks.base import Difference, Labelled, Task
from watchkeeper.training.declaration import Gate

Numbers = NDArray[np.float64]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Comparison(msgspec.Struct, frozen=True):
    """The same rows with the scores of both versions, and the task that compares them."""

    task: Task
    candidate: Labelled
    production: Labelled

    def count_rare(self) -> int:
        """Return how many rows are of the kind that a fit needs, see :class:`Task`."""
        labels, counts = np.unique(self.candidate.target, return_counts=True)
        return self.task.count_rare(dict(zip(labels.tolist(), counts.tolist(), strict=True)))

    def difference(self) -> Difference | None:
        """Return the qualities and their difference; None if the rows cannot tell."""
        return self.task.paired(self.candidate, self.production)


def floors(gate: Gate, metrics: dict[str, Estimate]) -> list[Check]:
    """Check that each metric on the held-out history reaches its declared floor."""
    checks = []
    for name, floor in gate.floors.items():
        estimate = metrics[name]
        passed = estimate.value is not None and estimate.value >= floor
        value = "is not defined" if estimate.value is None else f"is {estimate.value:.3f}"
        reason = f"{name} {value}, at least {floor:g} is required"
        checks.append(Check(f"floor {name}", passed, reason, estimate, floor))
    return checks


def ceilings(gate: Gate, metrics: dict[str, Estimate]) -> list[Check]:
    """Check that no metric on the held-out history exceeds its declared ceiling."""
    checks = []
    for name, ceiling in gate.ceilings.items():
        estimate = metrics[name]
        passed = estimate.value is not None and estimate.value <= ceiling
        value = "is not defined" if estimate.value is None else f"is {estimate.value:.3g}"
        reason = f"{name} {value}, at most {ceiling:g} is allowed"
        checks.append(Check(f"ceiling {name}", passed, reason, estimate, ceiling))
    return checks


def max_label_rate(gate: Gate, rates: dict[str, Estimate]) -> list[Check]:
    """Check that no output label marks more of the held-out history than declared.

    A label that marks too many rows is useless, and nothing else bounds an unsupervised score.
    """
    checks = []
    for label, limit in gate.max_label_rate.items():
        rate = rates[label].value
        passed = rate is not None and rate <= limit
        reason = f"{label} marks {rate or 0.0:.1%} of the rows, at most {limit:.1%} is allowed"
        checks.append(Check(f"max label rate {label}", passed, reason, rates[label], limit))
    return checks


def signature(candidate: Signature, production: Signature) -> Check:
    """Check that this version accepts every request that production accepts."""
    problems = candidate.incompatibilities(production)
    reason = "; ".join(problems) or "every request to production is accepted"
    return Check("signature", not problems, reason)


def noninferior(gate: Gate, rows: Comparison, where: str) -> Check:
    """Check that the quality is with 95 % confidence at most the margin worse than production's."""
    reason, better = _against(rows)
    margin = rows.task.margin if gate.margin is None else gate.margin
    passed = better.low is not None and better.low >= -margin
    reason = f"{where}: {reason}, at most {margin:g} worse is allowed"
    return Check(f"noninferior on {where}", passed, reason, better, -margin)


def superior(rows: Comparison, where: str) -> Check:
    """Check that the quality is with 95 % confidence better than production's."""
    reason, better = _against(rows)
    passed = better.low is not None and better.low > 0.0
    return Check(f"superior on {where}", passed, f"{where}: {reason}", better, 0.0)


def on_recent(gate: Gate, rows: Comparison | None, *, must_improve: bool) -> list[Check]:
    """Compare with production on recent rows that neither version was fitted on.

    A version that answers a drift must be superior there; too few rows fail it. Any other version
    must be noninferior; too few rows give no check.
    """
    count, rare = (len(rows.candidate), rows.count_rare()) if rows else (0, 0)
    if rows and count >= gate.minimum_recent and rare >= gate.minimum_recent_positives:
        if must_improve:
            return [superior(rows, "recent rows")]
        return [noninferior(gate, rows, "recent rows")]
    if not must_improve:
        return []
    kind = rows.task.rare if rows else ""
    found = f" ({rare} {kind})" if kind else ""
    reason = (
        f"{count} recent held-out rows{found} are too few for a comparison: {gate.minimum_recent} "
        f"({gate.minimum_recent_positives} {kind or 'of the rare kind'}) are needed"
    )
    return [Check("superior on recent rows", passed=False, reason=reason)]


def shift(candidate: Numbers, production: Numbers, on: RowsKind, seed: int) -> Shift:
    """Measure how a score of shape (rows,) moves from production to this version."""
    moved = candidate - production
    quantiles = (_quantiles(values) for values in (moved, production, candidate))
    return Shift(on, len(moved), mean(moved, seed), *quantiles)


def verdict(checks: list[Check]) -> tuple[bool, str]:
    """Return whether all checks passed, and the reasons: of the failed ones, or else of all."""
    failed = [check.reason for check in checks if not check.passed]
    return not failed, "; ".join(failed or [check.reason for check in checks])


def _against(rows: Comparison) -> tuple[str, Estimate]:
    """Return the comparison in words, and by how much the candidate is better."""
    found = rows.difference()
    better = normal(found.value, found.variance) if found else UNDEFINED
    quality = rows.task.quality
    if found is None or better.value is None:
        return f"{quality} cannot be compared: the rows have too few different outcomes", UNDEFINED
    interval = f"95 % interval {better.low:+.3f} to {better.high:+.3f}"
    return (
        f"{quality} {found.new:.3g} is better by {found.value:+.3f} than production's "
        f"{found.old:.3g} ({interval})",
        better,
    )


def _quantiles(values: Numbers) -> dict[str, float]:
    return {
        f"{q:g}": float(x) for q, x in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)
    }
