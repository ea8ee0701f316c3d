"""Applying a pipeline: the reference answer of a head."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from watchkeeper.core.version import Head


def score(pipeline: Any, head: Head, frame: pd.DataFrame) -> NDArray[np.float64]:
    """Apply a pipeline by its head's method; returns shape (rows,).

    Of ``predict_proba`` it is the probability of the positive class.
    """
    return score_features(pipeline.steps[-1][1], head.method, features(pipeline, frame))


def features(pipeline: Any, frame: pd.DataFrame) -> Any:
    """Return what the last step of a pipeline gets: doubles of shape (rows, features).

    A pipeline of one step gets the frame itself.
    """
    values: Any = frame
    for _, step in pipeline.steps[:-1]:
        if hasattr(step, "transform"):  # and is not "passthrough"
            values = step.transform(values)
    return dense(values) if len(pipeline.steps) > 1 else values


def score_features(estimator: Any, method: str, values: Any) -> NDArray[np.float64]:
    """Apply the last step of a pipeline to features; returns shape (rows,)."""
    result = np.asarray(getattr(estimator, method)(values), dtype=np.float64)
    return result[:, 1] if method == "predict_proba" else result


def dense(values: Any) -> NDArray[np.float64]:
    """Return features as an array of doubles.

    Zeros that a sparse matrix leaves out are zeros. XGBoost would take them as missing.
    """
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float64)
