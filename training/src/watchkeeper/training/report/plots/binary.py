"""The plots of a binary head."""

from collections.abc import Callable
from itertools import islice
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from scipy.stats import binomtest
from sklearn.metrics import ConfusionMatrixDisplay, precision_recall_curve, roc_curve

from watchkeeper.core.estimates import LEVEL, Numbers, resamples
from watchkeeper.core.tasks.base import Labelled, Task

RESAMPLES: Final = 100
_GRID: Final = np.linspace(0.0, 1.0, 201)
_BINS: Final = 10
_BAND: Final = "The band is the 95 % confidence interval."
_TAILS: Final = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)

# From truth (rows,), score (rows,) and weights (rows,) or None to the values on the grid.
Curve = Callable[[Numbers, Numbers, Numbers | None], Numbers]


def confusion(axes: Axes, task: Task, rows: Labelled, seed: int) -> str | None:  # noqa: ARG001
    """Draw how many rows of each outcome are counted as positive."""
    if task.threshold is None:
        return None
    draw_confusion(axes, rows.target, _score(task, rows) >= task.threshold, ["0", "1"])
    return f"A row counts as positive from the score {task.threshold:g} on."


def roc(axes: Axes, task: Task, rows: Labelled, seed: int) -> str | None:
    """Draw the ROC curve."""
    if not _both_outcomes(rows):
        return None

    def rates(target: Numbers, score: Numbers, weights: Numbers | None) -> Numbers:
        false, true, _ = roc_curve(target, score, sample_weight=weights)
        return np.asarray(np.interp(_GRID, false, true))

    _draw_curve(axes, rows, _score(task, rows), rates, seed)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC curve")
    return f"{_BAND} The dashed line is that of a score that knows nothing."


def precision_recall(axes: Axes, task: Task, rows: Labelled, seed: int) -> str | None:
    """Draw the precision by the recall."""
    if not _both_outcomes(rows):
        return None

    def precisions(target: Numbers, score: Numbers, weights: Numbers | None) -> Numbers:
        precision, recall, _ = precision_recall_curve(target, score, sample_weight=weights)
        # The precision that the next larger recall reaches: there is nothing between two steps.
        places = np.searchsorted(recall[::-1], _GRID, side="left")
        return np.asarray(precision[::-1][np.minimum(places, len(recall) - 1)])

    _draw_curve(axes, rows, _score(task, rows), precisions, seed)
    share = float(rows.target.mean())
    axes.axhline(share, color="grey", linewidth=0.8, linestyle="--")
    axes.set(xlabel="recall", ylabel="precision", title="Precision and recall", ylim=(0, 1.02))
    return f"{_BAND} The dashed line is the share of positives: {share:.2%} of the rows."


def calibration(axes: Axes, task: Task, rows: Labelled, seed: int) -> str | None:  # noqa: ARG001
    """Draw the share of positives by the predicted probability."""
    if task.head.method != "predict_proba" or not _both_outcomes(rows):
        return None
    score = _score(task, rows)
    # A forest has few distinct scores, so some edges coincide.
    edges = np.unique(np.quantile(score, np.linspace(0, 1, _BINS + 1)))
    bins = np.searchsorted(edges[1:-1], score, side="right")
    for one in np.unique(bins):
        inside = bins == one
        found, count = int(rows.target[inside].sum()), int(inside.sum())
        interval = binomtest(found, count).proportion_ci(LEVEL, method="wilson")
        place, share = float(score[inside].mean()), found / count
        reach = [[max(0.0, share - interval.low)], [max(0.0, interval.high - share)]]
        axes.errorbar([place], [share], yerr=reach, color="C0", marker="o", markersize=4)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    axes.set(xlabel="predicted probability", ylabel="share of positives", title="Calibration")
    return (
        f"Each point is one of at most {_BINS} groups of equally many rows, by their score, "
        "with a 95 % confidence interval. A calibrated score is on the dashed line."
    )


def draw_confusion(axes: Axes, truth: Any, decided: Any, names: list[str]) -> None:
    """Draw the confusion matrix of decisions (rows,), both as numbers from 0."""
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, (truth.astype(np.intp), decided.astype(np.intp)), 1)
    shown = ConfusionMatrixDisplay(counts, display_labels=names)
    shown.plot(ax=axes, colorbar=False, cmap="Blues", include_values=len(names) <= 20)
    axes.tick_params(axis="x", rotation=45 if len(names) > 2 else 0)
    axes.set(xlabel="decision", ylabel="truth", title="Confusion matrix")


def _draw_curve(axes: Axes, rows: Labelled, score: Numbers, curve: Curve, seed: int) -> None:
    """Draw a curve with the band of its resamples."""
    weights = (w for part in resamples(len(rows), seed) for w in part)
    known = (w for w in islice(weights, RESAMPLES) if 0 < w @ rows.target < w.sum())
    resampled = [curve(rows.target, score, w) for w in known]
    if resampled:
        axes.fill_between(_GRID, *np.quantile(resampled, _TAILS, axis=0), alpha=0.25, linewidth=0)
    axes.plot(_GRID, curve(rows.target, score, None))


def _score(task: Task, rows: Labelled) -> Numbers:
    return np.asarray(rows.scores[task.head.score], dtype=np.float64)


def _both_outcomes(rows: Labelled) -> bool:
    return bool(0 < rows.target.sum() < len(rows))
