"""Stage 3, search: choose parameters by cross-validation on the history's training rows."""

import logging
import tempfile
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from watchkeeper.core.gate_report import Trial
from watchkeeper.core.policies import override
from watchkeeper.training import CannotTrainError, SearchInterruptedError
from watchkeeper.training.declaration import Model, Parameters
from watchkeeper.training.declaration.search import size
from watchkeeper.training.objective import Objective
from watchkeeper.training.split import Parts

log = logging.getLogger(__name__)


class SearchResult(msgspec.Struct, frozen=True):
    """The parameters to train with, and what the search tried before, the best first."""

    parameters: Parameters
    trials: list[Trial] = []


def search(
    model: Model, parameters: Parameters, chosen: frozenset[str], parts: Parts, scratch: Path
) -> SearchResult:
    """Search the declared space, and return the best set by the search metric of the main head.

    The ``chosen`` parameters, those that the user has set, are not searched. If no others are left,
    or without rows for two folds, ``parameters`` stay as they are.

    Args:
        model: the declaration.
        parameters: of the run.
        chosen: names of parameters.
        parts: the rows.
        scratch: a folder for files that workers share.

    Raises:
        CannotTrainError: no set of parameters can be fitted.
        SearchInterruptedError: workers were killed, or had an error of the machine, and what is
            left of the search is not enough.
    """
    declared = model.search
    space = {name: within for name, within in declared.space.items() if name not in chosen}
    if parameters.search == "off" or not space:
        return SearchResult(parameters)
    rows, blocks = parts.train.about(model.target), parts.blocks[~np.isnan(parts.train.target)]
    folds = _folds(model, rows.target, blocks)
    if not folds:
        return SearchResult(parameters)
    count = int(min(declared.trials, size(space)))
    objective = Objective(model, parameters, space, count, rows, blocks, folds)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="search-") as folder:
        trials = _carry_out(objective, Path(folder) / "journal")
    if trials[0].state != "complete":
        raise CannotTrainError(f"search: none of {count} trials is complete: {trials[0].message}")
    return SearchResult(override(parameters, trials[0].parameters), trials)


def _carry_out(objective: Objective, journal: Path) -> list[Trial]:
    """Carry out all trials, and return them, the best first."""
    # Late, because it takes a quarter of a second, and few commands search.
    from watchkeeper.training import study as studies  # noqa: PLC0415
    from watchkeeper.training.search_workers import run_workers  # noqa: PLC0415
    from watchkeeper.training.study_storage import open_storage  # noqa: PLC0415
    from watchkeeper.training.trials import work  # noqa: PLC0415

    workers = objective.model.search.workers
    storage = open_storage(journal if workers > 1 else None)
    study = studies.create_study(storage, objective)
    if workers > 1:
        all_well = run_workers(workers, journal, objective)
        studies.fail_running(study)
        if not all_well and not studies.is_enough(study, objective):
            raise SearchInterruptedError(
                "search: workers have ended with an error or were killed, see the lines above; "
                "the run can start again"
            )
    else:
        work(study, objective)
    return studies.results(study, objective)


def _folds(
    model: Model, target: NDArray[np.float64], blocks: NDArray[np.int64]
) -> list[NDArray[np.bool_]]:
    """Return for each fold which training rows (rows,) it is tested on.

    Empty when a search is not possible: each fold must leave rows of every outcome to fit, and a
    rare outcome in few neighbouring blocks does not.
    """
    count = min(model.search.folds, len(np.unique(blocks)))
    if count < 2:
        return []
    folds = []
    for train, test in GroupKFold(count).split(blocks, groups=blocks):
        if not set(model.task.outcomes) <= set(target[train]):
            log.warning("search: skipped, an outcome has too few rows in too few blocks")
            return []
        folds.append(np.isin(np.arange(len(blocks)), test))
    return folds
