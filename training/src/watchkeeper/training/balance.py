"""SMOTE on raw request rows, of training folds only and of one regime at a time."""

from typing import Any

import numpy as np
import pandas as pd
from imblearn.over_sampling import SMOTE, SMOTENC
from numpy.typing import NDArray

from watchkeeper.training.declaration import Balance, Model


def balanced(
    columns: pd.DataFrame, target: NDArray[np.float64], model: Model, seed: int
) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Append synthetic positives until the declared ratio is reached.

    SMOTENC where there are categories: it takes the most frequent one of the neighbours. Synthetic
    rows are raw rows, so features that are products of columns stay products of columns.

    Args:
        columns: the request columns of the real rows.
        target: their truth, of shape (rows,).
        model: its ``balance`` is the rule; None, or fewer than two positives, changes nothing.
        seed: starts the random choice.
    """
    rule = model.balance
    positives = int(target.sum())
    if rule is None or positives < 2 or positives >= rule.ratio * (len(target) - positives):
        return columns, target
    numeric = [name for name in model.names if name not in model.categories]
    # Distances between neighbours must not depend on the units of the columns.
    centre, spread = columns[numeric].mean(), columns[numeric].std().replace(0.0, 1.0)
    scaled = columns.copy()
    scaled[numeric] = (columns[numeric] - centre) / spread
    sampler = _sampler(rule, model.categories, min(rule.neighbours, positives - 1), seed)
    frame, outcome = sampler.fit_resample(scaled, target.astype(np.int64))
    synthetic = frame.iloc[len(target) :].copy()
    synthetic[numeric] = synthetic[numeric] * spread + centre
    all_rows = pd.concat([columns, synthetic[model.names]], ignore_index=True)
    return all_rows, np.asarray(outcome, dtype=np.float64)


def _sampler(rule: Balance, categories: list[str], neighbours: int, seed: int) -> Any:
    common = {"sampling_strategy": rule.ratio, "k_neighbors": neighbours, "random_state": seed}
    return SMOTENC(categorical_features=categories, **common) if categories else SMOTE(**common)
