"""SMOTE on raw request rows: of training folds only, and of one regime at a time."""

from typing import Any

import numpy as np
import pandas as pd
from imblearn.over_sampling import SMOTE, SMOTENC
from numpy.typing import NDArray

from watchkeeper.training.declaration import Balance, Model


def balanced(
    columns: pd.DataFrame, target: NDArray[np.float64], model: Model, seed: int
) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Return the rows followed by made-up positives, until there are as many as declared.

    SMOTENC where there are categories: between an L and an H machine there is none. Made-up
    rows are raw rows, so that products of columns are products in them too. Fewer than two
    positives leave everything as it is.
    """
    how = model.balance
    positives = int(target.sum())
    if how is None or positives < 2 or positives >= how.ratio * (len(target) - positives):
        return columns, target
    numeric = [name for name in model.names if name not in model.categories]
    # Neighbours must be near in every column, not just in the one with the largest unit.
    centre, spread = columns[numeric].mean(), columns[numeric].std().replace(0.0, 1.0)
    scaled = columns.copy()
    scaled[numeric] = (columns[numeric] - centre) / spread
    sampler = _sampler(how, model.categories, min(how.neighbours, positives - 1), seed)
    frame, outcome = sampler.fit_resample(scaled, target.astype(np.int64))
    made = frame.iloc[len(target) :].copy()
    made[numeric] = made[numeric] * spread + centre
    together = pd.concat([columns, made[model.names]], ignore_index=True)
    return together, np.asarray(outcome, dtype=np.float64)


def _sampler(how: Balance, categories: list[str], neighbours: int, seed: int) -> Any:
    common = {"sampling_strategy": how.ratio, "k_neighbors": neighbours, "random_state": seed}
    return SMOTENC(categorical_features=categories, **common) if categories else SMOTE(**common)
