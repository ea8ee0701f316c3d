"""How much a head needs each request column: what it loses when the column's values are permuted.

Permutation importance (Breiman, "Random forests", Machine Learning 45, 2001), on held-out rows and
in the metric that a search for parameters maximises. Columns that tell the same share their
importance, so each of them can look unimportant.
"""

from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from sklearn.inspection import permutation_importance
from sklearn.pipeline import Pipeline

from watchkeeper.core.head import Head
from watchkeeper.core.tasks import task_of
from watchkeeper.core.tasks.base import Labelled
from watchkeeper.pipeline import score
from watchkeeper.training.rows import Rows

REPEATS: Final = 5
MOST_ROWS: Final = 500
# Rows that are scored for all columns together, so that it takes seconds.
_MOST_SCORED: Final = 30_000
_LEAST_ROWS: Final = 200
_MOST_COLUMNS: Final = 25  # with the largest importance, in the plot


def draw_importance(axes: Axes, head: Head, pipeline: Pipeline, rows: Rows, seed: int) -> str:
    """Draw the importance of each request column to a head.

    Args:
        axes: where to draw.
        head: the fitted head.
        pipeline: its pipeline.
        rows: held-out rows, with the truth of the head as their target.
        seed: of the permutations.

    Returns:
        The sentence below the plot.
    """
    task = task_of(head)
    each = _MOST_SCORED // (REPEATS * len(rows.columns.columns))
    most = min(len(rows), MOST_ROWS, max(_LEAST_ROWS, each))

    def measured(fitted: Any, columns: pd.DataFrame, target: Any) -> float:
        scores = task.columns(score(fitted, head, columns))
        return task.search_value(Labelled(np.asarray(target), scores))

    chosen = rows.take(_chosen(rows, most, bool(task.outcomes), seed))
    found = permutation_importance(
        pipeline,
        chosen.columns,
        chosen.target,
        scoring=measured,
        n_repeats=REPEATS,
        random_state=seed,
    )
    shown = np.argsort(found.importances_mean)[-_MOST_COLUMNS:]
    names = [str(chosen.columns.columns[place]) for place in shown]
    axes.boxplot(found.importances[shown].T, orientation="horizontal", tick_labels=names)
    axes.axvline(0.0, color="grey", linewidth=0.8, linestyle="--")
    metric = task.search_metric.replace("_", " ")
    axes.set(xlabel=f"loss of {metric}", title="Importance of columns")
    part = "" if len(shown) == len(found.importances) else f"The {len(shown)} largest. "
    chosen_by = ", with as many of each outcome as possible" * bool(task.outcomes)
    return (
        f"{part}The box has the quartiles of {REPEATS} permutations of each column, in {most} of "
        f"{len(rows)} rows{chosen_by * (most < len(rows))}."
    )


def _chosen(rows: Rows, most: int, has_outcomes: bool, seed: int) -> Any:
    """Choose rows; of a rare outcome as many as of the others, or all that there are."""
    random = np.random.default_rng(seed)
    if len(rows) <= most:
        return np.arange(len(rows))
    if not has_outcomes:
        return np.sort(random.choice(len(rows), most, replace=False))
    outcomes = np.unique(rows.target)
    each = [random.permutation(np.flatnonzero(rows.target == x)) for x in outcomes]
    first = np.concatenate([places[: most // len(outcomes)] for places in each])
    rest = random.permutation(np.concatenate([places[most // len(outcomes) :] for places in each]))
    return np.sort(np.concatenate([first, rest[: most - len(first)]]))
