"""Columns that know the truth: copies of the target, what follows from it, and identifiers.

A request cannot contain what becomes known after it. Such a column in the history makes a version
look perfect and be useless. Two signs are looked for on the held-out history, in one column at a
time, by the separation that the task defines: ROC AUC in the better direction (binary), the
smallest ROC AUC between neighbouring classes (multi-class), or the rank correlation (regression).

**A copy.** The column separates the outcomes without any inverted or equal pair. The target does, a
monotone function of it, and a cost that only positive rows have. The gate rejects the version if
the held-out history has at least :data:`ENOUGH` rows, and :data:`OF_EACH` of each outcome. A column
that is independent of the truth separates them with a probability of 2 / C(rows, positives), which
is then below 1e-33 for two outcomes, and smaller for more. An honest column with normal values and
a ROC AUC of 0.99 does so in less than one of a hundred cases.

**A suspicion.** A column separates the outcomes almost (the 95 % interval of its separation lies
above :data:`ALMOST`) or with few rows. Or it looks like an identifier that predicts: nearly every
row has an integer of its own, and the interval lies above :data:`PREDICTS`. Suspicions are in the
reports and do not decide.

The declaration can name columns that may do this (``Gate.allowed``), for example the sensor whose
limit defines a failure. A category counts as the mean label that it has in the fitted rows: for two
outcomes, the share of positives.
"""

from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from watchkeeper.core.estimates import Estimate
from watchkeeper.core.gate_report import Check
from watchkeeper.core.tasks.base import Task
from watchkeeper.core.truths import Truth
from watchkeeper.training.declaration import Model
from watchkeeper.training.rows import Rows

ENOUGH: Final = 400
OF_EACH: Final = 20
ALMOST: Final = 0.95
PREDICTS: Final = 0.6
UNIQUE: Final = 0.95  # share of rows with an integer of their own


def leakage(model: Model, train: Rows, held: Rows) -> tuple[Check, list[str]]:
    """Look for columns that know the truth.

    Args:
        model: the declaration.
        train: the history that was fitted.
        held: the held-out history.

    Returns:
        The gate's check, and the suspicions, one sentence per column.
    """
    copies: list[str] = []
    suspicions: list[str] = []
    for truth in model.truths:
        about = (rows.about(truth.name) for rows in (train, held))
        found, suspected = _leaks(model, truth, *about)
        copies += found
        suspicions += suspected
    reason = "no column alone separates the outcomes"
    if copies:
        reason = (
            f"{', '.join(copies)}; remove it, or name it in gate.allowed if a request can "
            "contain it"
        )
    return Check("leakage", not copies, reason), suspicions


def _leaks(model: Model, truth: Truth, train: Rows, held: Rows) -> tuple[list[str], list[str]]:
    """Return what separates the outcomes of one truth, and what is suspected of it."""
    copies, suspicions = [], []
    task = truth.task
    enough = _is_enough(task, held.target)
    for name in model.names:
        if name in model.gate.allowed:
            continue
        alone = _alone(task, train, held, name)
        value, low = alone.value or 0.0, alone.low or 0.0
        measured = f"separation {value:.3f} of {truth.name!r} alone, 95 % interval from {low:.3f}"
        if value == 1.0 and enough:
            copies.append(
                f"column {name!r} separates the outcomes on the held-out history, as a copy of "
                f"{truth.name!r} does"
            )
        elif value == 1.0 or low > ALMOST:
            suspicions.append(f"column {name!r} may know the truth ({measured})")
        elif low > PREDICTS and _is_identifier(held.columns[name]):
            suspicions.append(f"column {name!r} looks like an identifier and predicts ({measured})")
    return copies, suspicions


def _alone(task: Task, train: Rows, held: Rows, name: str) -> Estimate:
    """Measure how well one column tells the truth, its missing values as the lowest value."""
    values = held.columns[name]
    if values.dtype == object:
        rates = pd.Series(train.target).groupby(train.columns[name].to_numpy()).mean()
        values = values.map(rates).fillna(float(train.target.mean()))
    score: NDArray[Any] = values.to_numpy(dtype=np.float64)
    known = ~np.isnan(score)
    if known.all():
        return task.separation(held.target, score)
    lowest = float(score[known].min(initial=0.0)) - 1.0
    found = [task.separation(held.target, np.where(known, score, lowest))]
    if _is_enough(task, held.target[known]):  # a copy of the truth may have gaps
        found.append(task.separation(held.target[known], score[known]))
    return max(found, key=lambda each: each.value or 0.0)


def _is_enough(task: Task, target: NDArray[np.float64]) -> bool:
    """Whether so many rows cannot be separated by chance."""
    fewest = min((int((target == x).sum()) for x in task.outcomes), default=len(target))
    return len(target) >= ENOUGH and fewest >= OF_EACH


def _is_identifier(values: "pd.Series[Any]") -> bool:
    """Whether nearly every row has an integer of its own."""
    numbers = values.to_numpy()
    whole = numbers.dtype.kind == "i" or (
        numbers.dtype.kind == "f" and bool((numbers == np.floor(numbers)).all())
    )
    return whole and values.nunique() >= UNIQUE * len(values)
