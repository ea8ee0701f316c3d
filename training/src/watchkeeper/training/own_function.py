"""A model's own training function: what it gets, and what is said if it fails."""

import inspect
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from watchkeeper.core.tasks import task_of
from watchkeeper.training import CannotTrainError
from watchkeeper.training.declaration import Head, Model, Parameters
from watchkeeper.training.rows import Rows, joined
from watchkeeper.training.training_data import TrainingData


def call_train(
    head: Head,
    model: Model,
    parameters: Parameters,
    old: Rows,
    recent: Rows,
    *,
    blocks: NDArray[np.int64],
) -> Any:
    """Call the function of a head, and return what it returns.

    Args:
        head: a head with a function.
        model: the declaration.
        parameters: of the run.
        old: rows of the history.
        recent: labelled rows of the present regime.
        blocks: the numbers of the blocks of ``old``, of shape (rows,).

    Raises:
        CannotTrainError: the function raised an error; the message has its line.
    """
    if head.train is None:
        raise ValueError(f"head {head.score!r} has no train function")
    data = training_data(head, model, parameters, old, recent, blocks=blocks)
    try:
        return head.train(data)
    except (OSError, MemoryError, CannotTrainError):
        raise  # of the machine, or a refusal already
    except Exception as error:
        raise CannotTrainError(
            f"head {head.score!r}: its train function raised {type(error).__name__}: {error}"
            f"{_place(head.train, error)}"
        ) from error


def training_data(
    head: Head,
    model: Model,
    parameters: Parameters,
    old: Rows,
    recent: Rows,
    *,
    blocks: NDArray[np.int64],
) -> TrainingData:
    """Return the rows as a head's function gets them; see :func:`call_train`."""
    rows, declared = joined(old, recent), head.describe()
    target: NDArray[Any] | None = rows.target if head.supervised else None
    if target is not None and task_of(declared).outcomes:
        target = target.astype(np.int64)
    return TrainingData(
        columns=rows.columns,
        target=target,
        weight=weights(model, len(old), len(recent)),
        recent=np.arange(len(rows)) >= len(old),
        groups=_groups(model, old, recent, blocks),
        classes=declared.classes,
        parameters=parameters,
    )


def weights(model: Model, old: int, recent: int) -> NDArray[np.float64]:
    """Return the weight of each row (rows,): of ``old`` rows of history, then ``recent`` ones."""
    weight = model.recent_weight * old / recent if recent else 0.0
    return np.concatenate([np.ones(old), np.full(recent, weight)])


def _groups(model: Model, old: Rows, recent: Rows, blocks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number what belongs together: declared groups, or blocks and requests."""
    of_history = old.group if model.split.group else blocks.astype(object)
    of_recent = np.where(recent.group == "", recent.key.astype(object), recent.group)
    names = np.concatenate([of_history.astype(object), of_recent.astype(object)])
    return np.asarray(pd.factorize(names)[0], dtype=np.int64)


def _place(function: Any, error: Exception) -> str:
    """Return the deepest line of the function's own module that an error comes from."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:  # a callable object
        return ""
    lines = [x.lineno for x in traceback.extract_tb(error.__traceback__) if x.filename == file]
    return f" ({Path(str(file)).name}, line {lines[-1]})" if lines else ""
