"""Tasks: what the values of a head mean, what its labels are, and how versions are compared.

To add a task, write a module with a class that has the members of
:class:`~watchkeeper.core.tasks.base.Task`, and add it to :data:`TASKS`. Nothing outside this
package asks which task a head has. Its plots are in ``watchkeeper.training.report.plots``.

============  ==========================================  ======================================
binary        something happens or not                    one score; labels 0 and 1
multiclass    one of several classes                      a score for each class; the class
regression    a number                                    the number; a prediction interval
anomaly       how usual a row is, without labels          one score
============  ==========================================  ======================================
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from watchkeeper.core.head import Head
from watchkeeper.core.tasks.anomaly import Anomaly
from watchkeeper.core.tasks.base import Task
from watchkeeper.core.tasks.binary import Binary
from watchkeeper.core.tasks.multiclass import Multiclass
from watchkeeper.core.tasks.regression import Regression

TASKS: Final[dict[str, Callable[[Head], Task]]] = {
    "binary": Binary,
    "multiclass": Multiclass,
    "regression": Regression,
    "anomaly": Anomaly,
}


class UnknownTaskError(ValueError):
    """A head names a task that this release does not have, or lacks what the task needs."""


@lru_cache(maxsize=256)  # a server asks for each batch
def task_of(head: Head) -> Task:
    """Return the task of a head; a task has no state.

    Raises:
        UnknownTaskError: there is no such task, or the head lacks what the task needs.
    """
    if head.task not in TASKS:
        raise UnknownTaskError(
            f"head {head.score!r}: unknown task {head.task!r}; tasks are {', '.join(TASKS)}"
        )
    try:
        return TASKS[head.task](head)
    except ValueError as error:
        raise UnknownTaskError(f"head {head.score!r}: {error}") from error
