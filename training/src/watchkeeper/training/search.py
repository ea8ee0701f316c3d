"""Stage 3, search: choose parameters by cross-validation on the history's training rows."""

import logging

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from watchkeeper.core.gate_report import Trial
from watchkeeper.core.policies import override
from watchkeeper.core.tasks.base import Labelled
from watchkeeper.training.declaration import Model, Parameters
from watchkeeper.training.fit import fit_head, score_head
from watchkeeper.training.split import Parts

log = logging.getLogger(__name__)


class SearchResult(msgspec.Struct, frozen=True):
    """The parameters to train with, and what the search tried before."""

    parameters: Parameters
    trials: list[Trial] = []


def search(
    model: Model, parameters: Parameters, chosen: frozenset[str], parts: Parts
) -> SearchResult:
    """Try the declared candidates and return the best by the search metric of the main head.

    Candidates that change one of the ``chosen`` parameters, those that the user has set, are not
    tried. Without two candidates, or without rows for two folds, ``parameters`` stay as they are.
    """
    candidates = [c for c in model.search.candidates if not chosen & set(c)]
    if parameters.search == "off" or len(candidates) < 2:
        return SearchResult(parameters)
    parts = msgspec.structs.replace(
        parts,
        train=parts.train.about(model.target),
        blocks=parts.blocks[~np.isnan(parts.train.target)],
    )
    folds = _folds(model, parts)
    if not folds:
        return SearchResult(parameters)
    trials, metric = [], model.task.search_metric
    for candidate in candidates:
        cheap = override(parameters, {**candidate, **model.search.cheaper})
        reached = _cross_validate(model, cheap, parts, folds)
        trials.append(Trial(candidate, reached, metric))
        log.info("search: %s reaches %s %.3f in %d folds", candidate, metric, reached, len(folds))
    best = max(trials, key=lambda trial: trial.value or float("-inf"))
    return SearchResult(override(parameters, best.parameters), trials)


def _folds(model: Model, parts: Parts) -> list[NDArray[np.bool_]]:
    """Return for each fold which training rows (rows,) it is tested on.

    Empty when a search is not possible: each fold must leave rows of every outcome to fit, and a
    rare outcome in few neighbouring blocks does not.
    """
    count = min(model.search.folds, len(np.unique(parts.blocks)))
    if count < 2:
        return []
    folds = []
    for train, test in GroupKFold(count).split(parts.blocks, groups=parts.blocks):
        if not set(model.task.outcomes) <= set(parts.train.target[train]):
            log.warning("search: skipped, an outcome has too few rows in too few blocks")
            return []
        folds.append(np.isin(np.arange(len(parts.blocks)), test))
    return folds


def _cross_validate(
    model: Model, parameters: Parameters, parts: Parts, folds: list[NDArray[np.bool_]]
) -> float:
    head, rows = model.main_head, parts.train
    scores = {name: np.zeros(len(rows)) for name in model.task.scores}
    no_rows = rows.where(np.zeros(len(rows), dtype=bool))
    for test in folds:
        fitted = rows.where(~test)
        blocks = parts.blocks[~test]
        pipeline = fit_head(head, model, parameters, fitted, no_rows, blocks=blocks)
        for name, values in score_head(head, pipeline, rows.where(test)).items():
            scores[name][test] = values
    return model.task.search_value(Labelled(rows.target, scores))
