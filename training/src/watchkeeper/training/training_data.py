"""What a model's own training function gets.

    def fit(data: TrainingData) -> Pipeline:
        steps = [("features", features()), ("estimator", LogisticRegression())]
        return Pipeline(steps).fit(data.columns, data.target, estimator__sample_weight=data.weight)

    Head("failure_probability", train=fit, label="failed")

Held-out rows are not in it: the gate judges what the function returns on rows it has not seen.
"""

from typing import Any

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold


class TrainingData(msgspec.Struct, frozen=True):
    """The rows to fit, oldest first: the history, then the recent labelled rows.

    Attributes:
        columns: The request columns in their declared order and units, of shape (rows, columns).
            FP64 columns are float64, INT64 columns int64, and BYTES columns text.
        target: The truth of each row, of shape (rows,). 0 and 1 for a binary task, the place of the
            class in ``classes`` for a multi-class task (both int64), or a number (float64). None
            for a head without a label.
        weight: How much each row should count, of shape (rows,), above 0. Rows of the history have
            1. All recent rows together have the model's ``recent_weight`` times as much as all rows
            of the history. Pass it on as ``sample_weight`` if the estimator accepts it.
        recent: Which rows are predictions of the present regime whose labels have arrived, of shape
            (rows,). The others are rows of the history.
        groups: Numbers of rows that belong together, of shape (rows,): rows of one block of
            neighbouring ids, of one declared group, or of one request. See :meth:`folds`.
        classes: The classes of a multi-class head by the numbers in ``target``; otherwise empty.
        parameters: The parameters of the run, of the class that the model declares. A function with
            a random part starts it with ``parameters.seed``.
    """

    columns: pd.DataFrame
    target: NDArray[Any] | None
    weight: NDArray[np.float64]
    recent: NDArray[np.bool_]
    groups: NDArray[np.int64]
    classes: tuple[str, ...]
    parameters: Any

    def __len__(self) -> int:
        return len(self.columns)

    def folds(self, count: int = 5) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Return places of rows to fit and places of rows to test on, for each of ``count`` folds.

        No group is on both sides of a fold. scikit-learn takes the result as ``cv``.

        Raises:
            ValueError: There are fewer groups than folds.
        """
        return list(GroupKFold(count).split(self.columns, groups=self.groups))
