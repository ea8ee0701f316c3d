"""The study of a search: how Optuna chooses and stops its trials, and what they have reached.

Workers share a study through its storage. One process creates it, and
:func:`watchkeeper.training.trials.work` carries out its trials in any number of processes.
"""

import math
from typing import Final

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from watchkeeper.core import gate_report as core
from watchkeeper.core.gate_report import Trial
from watchkeeper.training.declaration.search import size
from watchkeeper.training.objective import Objective

# Optuna would write to standard error itself, and `work` logs each trial.
optuna.logging.disable_default_handler()
optuna.logging.enable_propagation()
optuna.logging.set_verbosity(optuna.logging.ERROR)

NAME: Final = "search"  # of the study, which is alone in its storage
DECLARED: Final = "declared"  # attribute of a trial: its parameters are, and it is not pruned
MESSAGE: Final = "message"  # attribute of a trial: why it has failed
STARTUP_TRIALS: Final = 5  # random trials before the sampler has a model and the pruner a median
_STATES: Final[dict[TrialState, core.TrialState]] = {  # in the order of a report
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def create_study(storage: BaseStorage, objective: Objective) -> optuna.Study:
    """Create the study of a search, with the sets of parameters that are tried first.

    Args:
        storage: see :func:`watchkeeper.training.study_storage.open_storage`.
        objective: what the trials measure, and how many trials there are.
    """
    study = optuna.create_study(
        storage=storage,
        study_name=NAME,
        direction="maximize",
        sampler=_sampler(objective.parameters.seed),
        pruner=_pruner(),
    )
    declared = objective.declared_sets()
    for parameters in declared:
        study.enqueue_trial(parameters, user_attrs={DECLARED: True})
    if size(objective.space) <= objective.trials:
        for parameters in objective.all_sets():
            if parameters not in declared:
                study.enqueue_trial(parameters)
    return study


def load_study(storage: BaseStorage, seed: int) -> optuna.Study:
    """Open an existing study; ``seed`` starts the sampler, and each worker has its own."""
    return optuna.load_study(
        storage=storage, study_name=NAME, sampler=_sampler(seed), pruner=_pruner()
    )


def fail_running(study: optuna.Study) -> None:
    """Record trials that still run as failed; call it only after all workers have ended."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)


def is_enough(study: optuna.Study, objective: Objective) -> bool:
    """Return whether a search may use its trials, although workers were lost.

    All trials must have ended, one of them must be complete, and the trial of the defaults must not
    be lost: without it the result may be worse than they are.
    """
    trials = study.get_trials(deepcopy=False)
    states = [trial.state for trial in trials[: objective.trials] if trial.state.is_finished()]
    lost = trials[0].state == TrialState.FAIL and MESSAGE not in trials[0].user_attrs
    return len(states) == objective.trials and TrialState.COMPLETE in states and not lost


def results(study: optuna.Study, objective: Objective) -> list[Trial]:
    """Return the finished trials of a study, the best first."""
    metric, states = objective.model.task.search_metric, tuple(_STATES)
    found = study.get_trials(deepcopy=False, states=states)
    return sorted((_trial(x, metric) for x in found if x.number < objective.trials), key=_rank)


def _trial(found: FrozenTrial, metric: str) -> Trial:
    state, values = _STATES[found.state], found.intermediate_values
    value = found.value if state == "complete" else None
    return Trial(
        found.params,
        None if value is None or not math.isfinite(value) else value,
        metric,
        state=state,
        number=found.number,
        values=[values.get(fold) for fold in range(1, max(values, default=0) + 1)],
        started=found.datetime_start.timestamp() if found.datetime_start else 0.0,
        seconds=found.duration.total_seconds() if found.duration else 0.0,
        message=found.user_attrs.get(MESSAGE, "its process has ended" if state == "failed" else ""),
    )


def _rank(trial: Trial) -> tuple[int, float, int]:
    value = -math.inf if trial.value is None else trial.value
    return tuple(_STATES.values()).index(trial.state), -value, trial.number


def _sampler(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)


def _pruner() -> optuna.pruners.BasePruner:
    """Return the pruner.

    There are few folds, and the first of them says little. Successive halving would keep a quarter
    of the trials after it. The median stops half of them, and waits for some complete ones.
    """
    return optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS)
