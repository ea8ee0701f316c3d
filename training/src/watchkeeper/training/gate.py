"""The gate: the checks on held-out rows that make a version the candidate.

Pure functions: from scores and truth to checks.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.core.gate_report import Check, Estimate, RowsKind, Shift
from watchkeeper.core.signature import Signature
from watchkeeper.training.declaration import Gate
from watchkeeper.training.metrics import auc_difference, mean

Numbers = NDArray[np.float64]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Comparison(msgspec.Struct, frozen=True):
    """The truth of some rows and the scores of both versions, each of shape (rows,)."""

    target: Numbers
    candidate: Numbers
    production: Numbers


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
    """Check that ROC AUC is with 95 % confidence no more than the margin below production's."""
    difference = auc_difference(rows.target, rows.candidate, rows.production)
    passed = difference.low is not None and difference.low >= -gate.margin
    reason = f"{where}: ROC AUC {_against(difference)}, at most {gate.margin:g} less is allowed"
    return Check(f"noninferior on {where}", passed, reason, difference, -gate.margin)


def superior(rows: Comparison, where: str) -> Check:
    """Check that ROC AUC is with 95 % confidence higher than production's."""
    difference = auc_difference(rows.target, rows.candidate, rows.production)
    passed = difference.low is not None and difference.low > 0.0
    reason = f"{where}: ROC AUC {_against(difference)}"
    return Check(f"superior on {where}", passed, reason, difference, 0.0)


def on_recent(gate: Gate, rows: Comparison | None, *, must_improve: bool) -> list[Check]:
    """Compare with production on recent rows that neither version was fitted on.

    A version that answers a drift must be superior there; too few rows fail it. Any other version
    must be noninferior; too few rows give no check.
    """
    count, positives = (len(rows.target), int(rows.target.sum())) if rows else (0, 0)
    if rows and count >= gate.minimum_recent and positives >= gate.minimum_recent_positives:
        if must_improve:
            return [superior(rows, "recent rows")]
        return [noninferior(gate, rows, "recent rows")]
    if not must_improve:
        return []
    reason = (
        f"{count} recent held-out rows with {positives} positives are too few for a comparison: "
        f"{gate.minimum_recent} with {gate.minimum_recent_positives} are needed"
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


def _against(difference: Estimate) -> str:
    if difference.value is None:
        return "cannot be compared with production's: the rows have one outcome only"
    interval = f"95 % interval {difference.low:+.3f} to {difference.high:+.3f}"
    return f"{difference.value:+.3f} against production ({interval})"


def _quantiles(values: Numbers) -> dict[str, float]:
    return {
        f"{q:g}": float(x) for q, x in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)
    }
