"""Applying a pipeline: the reference answer of a head."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from watchkeeper.core.head import Head
from watchkeeper.core.tasks import task_of


def score(pipeline: Any, head: Head, frame: pd.DataFrame) -> NDArray[np.float64]:
    """Apply a pipeline by its head's method.

    Returns:
        The values of the head: the score of each row, of shape (rows,), or all scores of a head
        with several, of shape (rows, scores).
    """
    return score_features(pipeline.steps[-1][1], head, features(pipeline, frame))


def features(pipeline: Any, frame: pd.DataFrame) -> Any:
    """Return what the last step of a pipeline gets: doubles of shape (rows, features).

    A pipeline of one step gets the frame itself.
    """
    values: Any = frame
    for _, step in pipeline.steps[:-1]:
        if hasattr(step, "transform"):  # and is not "passthrough"
            values = step.transform(values)
    return dense(values) if len(pipeline.steps) > 1 else values


def score_features(estimator: Any, head: Head, values: Any) -> NDArray[np.float64]:
    """Apply the last step of a pipeline to features; returns the values of the head.

    Of two probabilities the second one is that of the positive class. An estimator that was fitted
    with named features gets them by these names.
    """
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None and isinstance(values, np.ndarray):
        values = pd.DataFrame(values, columns=names)
    result = np.asarray(getattr(estimator, head.method)(values), dtype=np.float64)
    if result.ndim == 1 or len(task_of(head).scores) > 1:
        return result
    if result.shape[1] > 2:
        raise ValueError(f"{head.method} returns {result.shape[1]} values for each row, not one")
    return result[:, min(1, result.shape[1] - 1)]


def dense(values: Any) -> NDArray[np.float64]:
    """Return features as an array of doubles.

    Zeros that a sparse matrix leaves out are zeros. XGBoost would take them as missing.
    """
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float64)
