"""The plots of a head with classes."""

from typing import Final

import numpy as np
from matplotlib.axes import Axes
from sklearn.metrics import roc_curve

from watchkeeper.core.tasks.base import Labelled, Task
from watchkeeper.training.report.plots.binary import draw_confusion

_MOST_CURVES: Final = 10  # more cannot be told apart by their colours


def confusion(axes: Axes, task: Task, rows: Labelled, seed: int) -> str | None:  # noqa: ARG001
    """Draw how many rows of each class are given each class."""
    decided = np.argmax([rows.scores[name] for name in task.scores], axis=0)
    draw_confusion(axes, rows.target, decided, [task.name(code) for code in task.outcomes])
    return "The decision is the class with the largest score."


def roc(axes: Axes, task: Task, rows: Labelled, seed: int) -> str | None:  # noqa: ARG001
    """Draw the ROC curve of each class against all others, those of the rarest classes."""
    counts = {code: int((rows.target == code).sum()) for code in task.outcomes}
    known = [code for code, count in counts.items() if 0 < count < len(rows)]
    shown = sorted(sorted(known, key=lambda code: counts[code])[:_MOST_CURVES])
    if not shown:
        return None
    for code in shown:
        score = rows.scores[task.scores[int(code)]]
        false, true, _ = roc_curve(rows.target == code, score)
        axes.plot(false, true, label=task.name(code))
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    axes.legend(fontsize="small")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC curves")
    of = "Each class" if len(shown) == len(known) else f"Each of the {len(shown)} rarest classes"
    return f"{of} against all others."
