"""The work on the trials of a study, in as many processes as there are workers."""

import logging
import math
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from watchkeeper.training import CannotTrainError
from watchkeeper.training.declaration.search import Choice, Integer
from watchkeeper.training.objective import Objective
from watchkeeper.training.study import DECLARED, MESSAGE

log = logging.getLogger(__name__)


def work(study: optuna.Study, objective: Objective) -> None:
    """Carry out trials of a study until none is left; other workers may do so at the same time.

    A trial whose estimator raises an error is recorded as failed, and the next one follows. An
    error of the machine, such as a full disk, ends the work.

    Args:
        study: a study that :func:`watchkeeper.training.study.create_study` has created.
        objective: what the trials measure, and how many trials there are.
    """
    while _is_open(study, objective.trials):
        study.optimize(
            lambda trial: _carry_out(study, trial, objective),
            n_trials=1,
            catch=(CannotTrainError,),
        )


def _is_open(study: optuna.Study, count: int) -> bool:
    trials = study.get_trials(deepcopy=False)
    return len(trials) < count or any(trial.state == TrialState.WAITING for trial in trials)


def _carry_out(study: optuna.Study, trial: optuna.Trial, objective: Objective) -> float:
    if trial.number >= objective.trials:
        raise optuna.TrialPruned  # two workers have seen that one trial is left
    parameters = _suggested(trial, objective)
    try:
        value = _value(study, trial, objective)
    except CannotTrainError as error:
        trial.set_user_attr(MESSAGE, str(error))
        log.warning("search: trial %d with %s failed: %s", trial.number, parameters, error)
        raise
    except optuna.TrialPruned:
        log.info("search: trial %d with %s is pruned", trial.number, parameters)
        raise
    metric = objective.model.task.search_metric
    log.info("search: trial %d with %s reaches %s %.3f", trial.number, parameters, metric, value)
    return value


def _suggested(trial: optuna.Trial, objective: Objective) -> dict[str, Any]:
    """Let the study choose a value of each parameter."""
    for name, within in objective.space.items():
        if isinstance(within, Choice):
            trial.suggest_categorical(name, within.options)
        elif isinstance(within, Integer):
            trial.suggest_int(name, within.low, within.high, log=within.log)
        else:
            trial.suggest_float(name, within.low, within.high, log=within.log)
    return trial.params


def _value(study: optuna.Study, trial: optuna.Trial, objective: Objective) -> float:
    """Return the metric over all folds; after each fold, a trial may be pruned."""
    known = (TrialState.COMPLETE, TrialState.PRUNED)
    for earlier in study.get_trials(deepcopy=False, states=known):
        if earlier.params == trial.params:
            return _repeated(trial, earlier)
    value = -math.inf
    for fold, reached in enumerate(objective.values(trial.params), start=1):
        # A value that is not defined on these rows compares as the worst.
        value = reached if math.isfinite(reached) else -math.inf
        if math.isfinite(value):
            trial.report(value, fold)
        may_stop = fold < len(objective.folds) and DECLARED not in trial.user_attrs
        if may_stop and trial.should_prune():
            raise optuna.TrialPruned
    return value


def _repeated(trial: optuna.Trial, earlier: FrozenTrial) -> float:
    """Return the value of an earlier trial with the same parameters, which are not fitted again."""
    for fold, value in earlier.intermediate_values.items():
        trial.report(value, fold)
    if earlier.state == TrialState.PRUNED or earlier.value is None:
        raise optuna.TrialPruned
    return earlier.value
