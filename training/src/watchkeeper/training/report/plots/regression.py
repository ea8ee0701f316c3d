"""The plots of a head that predicts a number."""

from typing import Final

import numpy as np
from matplotlib.axes import Axes

from watchkeeper.core.tasks.base import Labelled, Task

_MOST_POINTS: Final = 2000  # more make a large file and no clearer picture


def predicted(axes: Axes, task: Task, rows: Labelled, seed: int) -> str | None:
    """Draw the prediction by the truth, with the prediction interval if the head has one."""
    score = rows.scores[task.head.score]
    shown = np.arange(len(rows))
    if len(shown) > _MOST_POINTS:
        shown = np.random.default_rng(seed).choice(shown, _MOST_POINTS, replace=False)
    ends = np.array([rows.target[shown].min(), rows.target[shown].max()])
    axes.scatter(rows.target[shown], score[shown], s=4, alpha=0.4)
    axes.plot(ends, ends, color="grey", linewidth=0.8, linestyle="--")
    said = f"{len(shown)} of {len(rows)} rows. On the dashed line the prediction is the truth."
    if interval := task.head.interval:
        reach = interval.reach
        axes.fill_between(ends, ends - reach, ends + reach, alpha=0.15, color="grey", linewidth=0)
        said += f" The band has the width of the prediction interval of level {interval.level:g}."
    axes.set(xlabel="truth", ylabel="prediction", title="Prediction and truth")
    return said


def errors(axes: Axes, task: Task, rows: Labelled, seed: int) -> str | None:  # noqa: ARG001
    """Draw how often each error occurs."""
    error = rows.scores[task.head.score] - rows.target
    axes.hist(error, bins=50)
    axes.axvline(0.0, color="grey", linewidth=0.8, linestyle="--")
    axes.set(xlabel="prediction minus truth", ylabel="rows", title="Errors")
    return f"The mean error is {error.mean():.4g}, the standard deviation {error.std():.4g}."
