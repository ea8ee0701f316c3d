"""The gate: the checks on held-out rows that make a version the candidate.

Pure functions: from scores and truth to checks.
"""

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.core.estimates import LEVEL, UNDEFINED, Estimate, mean, normal
from watchkeeper.core.gate_report import Check, RowsKind, Shift
from watchkeeper.core.signature import Signature
from watchkeeper.core.tasks.base import Difference, Labelled, Task
from watchkeeper.core.truths import Truth
from watchkeeper.training.declaration import Gate

Numbers = NDArray[np.float64]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Comparison(msgspec.Struct, frozen=True):
    """The same rows with the scores of both versions, and the task that compares them.

    ``is_main`` says whether the task is that of the main head.
    """

    task: Task
    candidate: Labelled
    production: Labelled
    is_main: bool = True

    def named(self, where: str) -> str:
        """Return the words for the rows; they name the head unless it is the main head."""
        return where if self.is_main else f"{where} of {self.task.head.label}"

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


def max_label_rate(gate: Gate, rates: dict[str, Estimate], where: str = "") -> list[Check]:
    """Check that no output label marks more of the held-out rows than declared.

    A label that marks too many rows is useless, and nothing else bounds an unsupervised score.
    ``where`` are the words for other rows than the history.
    """
    checks = []
    for label, limit in gate.max_label_rate.items():
        rate = rates[label].value
        passed = rate is not None and rate <= limit
        marked = f"{label} marks {rate or 0.0:.1%} of {where or 'the rows'}"
        reason = f"{marked}, at most {limit:.1%} is allowed"
        name = f"max label rate {label}" + (f" on {where}" if where else "")
        checks.append(Check(name, passed, reason, rates[label], limit))
    return checks


def signature(candidate: Signature, production: Signature) -> Check:
    """Check that this version accepts every request that production accepts."""
    problems = candidate.incompatibilities(production)
    reason = "; ".join(problems) or "every request to production is accepted"
    return Check("signature", not problems, reason)


def labels(candidate: Iterable[Truth], production: Iterable[Truth]) -> Check:
    """Check that this version accepts every label that production accepts.

    Labels are stored under the name of their truth, and those without a name are about the truth of
    the main head.
    """
    new, old = ({truth.name: truth for truth in version} for version in (candidate, production))
    problems = [
        f"label {name!r} is of the task {truth.task.head.task} in production and of "
        f"{new[name].task.head.task} here"
        if name in new
        else f"no head has the label {name!r}, which production has"
        for name, truth in old.items()
        if name and (name not in new or new[name].task.head.task != truth.task.head.task)
    ]
    main, before = next(iter(new), ""), next(iter(old), "")
    if before in new and main != before:
        problems.append(f"the first label is {main!r}, and {before!r} in production")
    reason = "; ".join(problems) or "every label for production is accepted"
    return Check("labels", not problems, reason)


def noninferior(gate: Gate, rows: Comparison, where: str) -> Check:
    """Check that the quality is with 95 % confidence at most the margin worse than production's."""
    reason, better = _against(rows, LEVEL)
    margin = gate.margin_of(rows.task, is_main=rows.is_main)
    passed = better.low is not None and better.low >= -margin
    reason = f"{rows.named(where)}: {reason}, at most {margin:g} worse is allowed"
    return Check(f"noninferior on {rows.named(where)}", passed, reason, better, -margin)


def superior(comparisons: Sequence[Comparison], where: str) -> Check:
    """Check that the quality of one head is better than production's.

    All heads together look better by chance with a probability of at most 2.5 %, as one head alone
    does with a confidence of 95 %.
    """
    level = 1 - (1 - LEVEL) / len(comparisons)
    found = [(*_against(rows, level), rows) for rows in comparisons]
    passed = [each for each in found if each[1].low is not None and each[1].low > 0.0]
    reason = "; ".join(f"{rows.named(where)}: {text}" for text, _, rows in passed or found)
    return Check(f"superior on {where}", bool(passed), reason, (passed or found)[0][1], 0.0)


def on_recent(gate: Gate, comparisons: Sequence[Comparison], *, must_improve: bool) -> list[Check]:
    """Compare with production on recent rows that neither version was fitted on.

    A version that answers a drift must be superior there in one head, and noninferior in the
    others; too few rows of all heads fail it. Any other version must be noninferior; too few rows
    of a head give no check of it.
    """
    enough = [
        rows
        for rows in comparisons
        if len(rows.candidate) >= gate.minimum_recent
        and rows.count_rare() >= gate.minimum_recent_positives
    ]
    where = "recent rows"
    if not must_improve:
        return [noninferior(gate, rows, where) for rows in enough]
    if len(enough) == 1:
        return [superior(enough, where)]  # it is noninferior then
    if enough:
        return [superior(enough, where), *(noninferior(gate, rows, where) for rows in enough)]
    counts = "; ".join(
        f"{len(rows.candidate)} {rows.named('recent held-out rows')}"
        + (f" ({rows.count_rare()} {rows.task.rare})" if rows.task.rare else "")
        for rows in comparisons
    )
    kinds = {rows.task.rare for rows in comparisons} - {""}
    reason = (
        f"{counts or '0 recent held-out rows'} are too few for a comparison: {gate.minimum_recent} "
        f"({gate.minimum_recent_positives} {', '.join(sorted(kinds)) or 'of the rare kind'}) are "
        "needed"
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
    reasons = failed or [check.reason for check in checks]
    return not failed, "; ".join(reasons) or "the gate requires nothing of this model"


def _against(rows: Comparison, level: float) -> tuple[str, Estimate]:
    """Return the comparison in words, and by how much the candidate is better, at a level."""
    found = rows.difference()
    better = normal(found.value, found.variance, level=level) if found else UNDEFINED
    quality = rows.task.quality
    if found is None or better.value is None:
        return f"{quality} cannot be compared: the rows have too few different outcomes", UNDEFINED
    interval = f"{100 * level:.3g} % interval {better.low:+.3f} to {better.high:+.3f}"
    return (
        f"{quality} {found.new:.3g} is better by {found.value:+.3f} than production's "
        f"{found.old:.3g} ({interval})",
        better,
    )


def _quantiles(values: Numbers) -> dict[str, float]:
    return {
        f"{q:g}": float(x) for q, x in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)
    }
