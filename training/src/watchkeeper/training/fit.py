"""Fitting: what is learned from training rows, and the small search before it.

The order within every training set, be it a fold or all of it: SMOTE on the raw rows, features,
clip the features to the real rows' quartiles, fit. Nothing of it touches held-out rows. For an
unsupervised head, which may be there to find outliers, it is features and fit alone.
"""

import logging

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline

from watchkeeper.contracts import version
from watchkeeper.contracts.answer import Columns
from watchkeeper.contracts.policies import override
from watchkeeper.pipeline import score
from watchkeeper.training.balance import balanced
from watchkeeper.training.declaration import Head, Model, Outliers, Parameters
from watchkeeper.training.judged import Tried
from watchkeeper.training.measure import average_precision
from watchkeeper.training.rows import Rows, joined
from watchkeeper.training.split import Parts

log = logging.getLogger(__name__)


def fit_head(head: Head, model: Model, parameters: Parameters, old: Rows, recent: Rows) -> Pipeline:
    """Fit the pipeline of one head on history and recent rows.

    However few the recent rows are, together they weigh ``recent_weight`` times the history:
    the version is to serve what happens now, and to keep what it knew.
    """
    columns, target, weight = _training_set(head, model, parameters, old, recent)
    pipeline = head.build(parameters)
    features, estimator = pipeline.named_steps["features"], pipeline.named_steps["estimator"]
    made = np.asarray(features.fit_transform(columns), dtype=np.float64)
    if model.outliers is not None and head.supervised:
        real = np.asarray(features.transform(joined(old, recent).columns), dtype=np.float64)
        made = clipped(made, real, model.outliers)
    if head.supervised:
        estimator.fit(made, target.astype(np.int64), sample_weight=weight)
    else:
        estimator.fit(made, sample_weight=weight)
    return pipeline


def clipped(
    values: NDArray[np.float64], real: NDArray[np.float64], rule: Outliers
) -> NDArray[np.float64]:
    """Clip each feature of ``values`` (rows, features) by the quartiles of ``real``.

    A feature whose quartiles coincide has no spread to call anything an outlier by.
    """
    low, high = np.quantile(real, (0.25, 0.75), axis=0)
    reach = rule.factor * (high - low)
    reach[reach == 0.0] = np.inf
    return np.clip(values, low - reach, high + reach)


def search(
    head: Head, model: Model, parameters: Parameters, chosen: frozenset[str], parts: Parts
) -> tuple[Parameters, list[Tried]]:
    """Try the declared sets of parameters on the history's training rows.

    Sets that touch a parameter of ``chosen``, the user's own, are not tried. Returns the best
    parameters and what each set reached.
    """
    candidates = [c for c in model.search.candidates if not chosen & set(c)]
    folds = _folds(model, parts)
    if parameters.search == "off" or len(candidates) < 2 or not folds:
        return parameters, []
    tried = []
    for candidate in candidates:
        cheap = override(parameters, {**candidate, **model.search.cheaper})
        reached = _cross_validated(head, model, cheap, parts, folds)
        tried.append(Tried(candidate, reached))
        log.info(
            "search: %s reaches average precision %.3f in %d folds", candidate, reached, len(folds)
        )
    best = max(tried, key=lambda one: one.average_precision)
    return override(parameters, best.parameters), tried


def _folds(model: Model, parts: Parts) -> list[NDArray[np.bool_]]:
    """Choose the rows that each fold is tried on; none if they do not suffice for a search.

    What is left to fit must have both outcomes, and where positives are few and near each other
    it may not.
    """
    count = min(model.search.folds, len(np.unique(parts.blocks)))
    if count < 2:
        return []
    folds = []
    for train, test in GroupKFold(count).split(parts.blocks, groups=parts.blocks):
        if len(np.unique(parts.train.target[train])) < 2:
            log.warning("search: left out, the positives are too few and too near each other")
            return []
        folds.append(np.isin(np.arange(len(parts.blocks)), test))
    return folds


def _cross_validated(
    head: Head, model: Model, parameters: Parameters, parts: Parts, folds: list[NDArray[np.bool_]]
) -> float:
    rows = parts.train
    found = np.zeros(len(rows))
    nothing = rows.where(np.zeros(len(rows), dtype=bool))
    for tried_on in folds:
        pipeline = fit_head(head, model, parameters, rows.where(~tried_on), nothing)
        found[tried_on] = score(pipeline, described(head), rows.columns.loc[tried_on])
    return float(average_precision(rows.target, found)[0])


def _training_set(
    head: Head, model: Model, parameters: Parameters, old: Rows, recent: Rows
) -> tuple[pd.DataFrame, NDArray[np.float64], NDArray[np.float64]]:
    parts = [(old.columns, old.target), (recent.columns, recent.target)]
    if head.supervised:
        parts = [balanced(*part, model, parameters.seed) for part in parts]
    (first, outcome), (second, other) = parts
    if not len(other):
        return first, outcome, np.ones(len(outcome))
    # Counted with the made-up rows, so that the regimes weigh what is declared in the fit.
    share = model.recent_weight * len(outcome) / len(other)
    weight = np.concatenate([np.ones(len(outcome)), np.full(len(other), share)])
    return (
        pd.concat([first, second], ignore_index=True),
        np.concatenate([outcome, other]),
        weight,
    )


def scores(heads: tuple[Head, ...], pipelines: dict[str, Pipeline], rows: Rows) -> Columns:
    """Score rows with fitted pipelines, one (rows,) array a head."""
    return {
        head.score: score(pipelines[head.score], described(head), rows.columns) for head in heads
    }


def described(head: Head) -> version.Head:
    """Return how a version's manifest names a head, without its ONNX form."""
    return version.Head(head.score, f"{head.score}.skops", head.method)
