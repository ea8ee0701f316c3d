"""The gate: checks on held-out rows that a version must pass to become ``candidate``.

Pure: from scores and outcomes to a report.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.contracts.signature import Signature
from watchkeeper.training.declaration import Gate
from watchkeeper.training.measure import Estimate, auc_difference, resamples

Numbers = NDArray[np.float64]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Check(msgspec.Struct, frozen=True):
    """One check and its outcome; ``limit`` is what ``estimate`` was held against."""

    name: str
    passed: bool
    reason: str
    estimate: Estimate | None = None
    limit: float | None = None


class Shift(msgspec.Struct, frozen=True):
    """How scores change from production to this version on the same ``rows`` rows.

    ``mean`` is of the differences row by row, ``quantiles`` too; ``production`` and
    ``candidate`` are the quantiles of the scores themselves. ``on`` says which rows.
    """

    on: str
    rows: int
    mean: Estimate
    quantiles: dict[str, float]
    production: dict[str, float]
    candidate: dict[str, float]


class Comparison(msgspec.Struct, frozen=True):
    """The same rows, scored by both; all of shape (rows,)."""

    target: Numbers
    candidate: Numbers
    production: Numbers


def floors(gate: Gate, metrics: dict[str, Estimate]) -> list[Check]:
    """Hold the metrics on the history's held-out rows against what is declared."""
    checks = []
    for name, floor in gate.floors.items():
        estimate = metrics[name]
        passed = estimate.value is not None and estimate.value >= floor
        reached = "is not defined" if estimate.value is None else f"is {estimate.value:.3f}"
        checks.append(
            Check(
                f"floor {name}",
                passed,
                f"{name} {reached}, at least {floor:g} is wanted",
                estimate,
                floor,
            )
        )
    return checks


def most(gate: Gate, shares: dict[str, Estimate]) -> list[Check]:
    """Hold the share of the history's held-out rows that a label marks against what is declared.

    A label that marks too many rows tells nobody anything.
    """
    return [
        Check(
            f"most {label}",
            (value := shares[label].value) is not None and value <= limit,
            f"{label} marks {value or 0.0:.1%} of the rows, at most {limit:.1%} is wanted",
            shares[label],
            limit,
        )
        for label, limit in gate.most.items()
    ]


def accepts(candidate: Signature, production: Signature) -> Check:
    """Check that production's clients can call this version."""
    problems = candidate.accepts_all_of(production)
    reason = "; ".join(problems) or "every request to production is accepted"
    return Check("signature", not problems, reason)


def no_worse(gate: Gate, rows: Comparison, where: str, seed: int) -> Check:
    """Check that ROC AUC is certainly not lower than production's by more than the margin."""
    found = auc_difference(rows.target, rows.candidate, rows.production, seed)
    passed = found.low is not None and found.low >= -gate.margin
    reason = f"{where}: ROC AUC {_against(found)}, at most {gate.margin:g} less is allowed"
    return Check(f"no worse on {where}", passed, reason, found, -gate.margin)


def better(rows: Comparison, where: str, seed: int) -> Check:
    """Check that ROC AUC is certainly higher than production's."""
    found = auc_difference(rows.target, rows.candidate, rows.production, seed)
    passed = found.low is not None and found.low > 0.0
    return Check(f"better on {where}", passed, f"{where}: ROC AUC {_against(found)}", found, 0.0)


def on_recent(gate: Gate, rows: Comparison | None, *, must_improve: bool, seed: int) -> list[Check]:
    """Check recent rows that neither has trained on; no check where they say nothing.

    A version that answers a drift must be better on what is new. Any other must be no worse,
    where there are rows enough to say so.
    """
    count, positives = (len(rows.target), int(rows.target.sum())) if rows else (0, 0)
    if rows and count >= gate.minimum_recent and positives >= gate.minimum_recent_positives:
        check = (
            better(rows, "recent rows", seed)
            if must_improve
            else no_worse(gate, rows, "recent rows", seed)
        )
        return [check]
    if not must_improve:
        return []
    reason = (
        f"{count} recent held-out rows with {positives} positives are too few to tell: "
        f"{gate.minimum_recent} with {gate.minimum_recent_positives} are needed"
    )
    return [Check("better on recent rows", passed=False, reason=reason)]


def shift(candidate: Numbers, production: Numbers, on: str, seed: int) -> Shift:
    """Measure how scores of shape (rows,) move from production to this version."""
    moved = candidate - production
    weights = resamples(len(moved), seed)
    means = weights @ moved / np.maximum(weights.sum(axis=1), 1.0)
    low, high = np.quantile(means, (0.025, 0.975))
    mean = Estimate(float(moved.mean()), float(low), float(high))
    return Shift(on, len(moved), mean, *(_quantiles(x) for x in (moved, production, candidate)))


def verdict(checks: list[Check]) -> tuple[bool, str]:
    """Sum up: passed, and why or why not."""
    failed = [check.reason for check in checks if not check.passed]
    return not failed, "; ".join(failed or [check.reason for check in checks])


def _against(found: Estimate) -> str:
    if found.value is None:
        return "cannot be compared with production's: one outcome only"
    interval = f"95 % interval {found.low:+.3f} to {found.high:+.3f}"
    return f"{found.value:+.3f} against production ({interval})"


def _quantiles(values: Numbers) -> dict[str, float]:
    return {
        f"{q:g}": float(x) for q, x in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)
    }
