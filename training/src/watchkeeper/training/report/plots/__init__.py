"""The plots of a head on held-out rows, by its task.

To plot a new task, write a module with its plots and add them to :data:`PLOTS`. A task without
plots has a page without them.
"""

from collections.abc import Callable
from typing import Final

from matplotlib.axes import Axes

from watchkeeper.core.tasks.base import Labelled, Task
from watchkeeper.training.report.plots import binary, multiclass, regression

# Draws held-out rows into the axes. Returns the sentence below the plot, or None if the rows or
# the head have nothing to draw.
Plot = Callable[[Axes, Task, Labelled, int], str | None]

PLOTS: Final[dict[str, tuple[Plot, ...]]] = {
    "binary": (binary.confusion, binary.roc, binary.precision_recall, binary.calibration),
    "multiclass": (multiclass.confusion, multiclass.roc),
    "regression": (regression.predicted, regression.errors),
}
