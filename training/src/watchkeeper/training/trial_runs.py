"""The trials of a search in MLflow: child runs of the run of a version."""

from typing import Final

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from watchkeeper.core.gate_report import Trial, TrialState
from watchkeeper.registry import RUN_TAG

STATE_TAG: Final = "watchkeeper.trial"
MESSAGE_TAG: Final = "watchkeeper.message"
_STATUS: Final[dict[TrialState, str]] = {
    "complete": "FINISHED",
    "pruned": "KILLED",
    "failed": "FAILED",
}
_MOST_CHARACTERS: Final = 4000  # of a tag; MLflow refuses longer ones


def delete_trials(client: MlflowClient, experiment: str, run: str) -> None:
    """Delete the trials of earlier attempts of a run: each attempt searches again.

    Args:
        client: of MLflow.
        experiment: the id of the experiment.
        run: the name of the training run.

    Raises:
        MlflowException: MLflow did not answer, or refused.
    """
    trials = f"tags.`{RUN_TAG}` = '{run}' AND tags.`{STATE_TAG}` LIKE '%'"
    while found := client.search_runs([experiment], trials):  # a page, without deleted ones
        for trial in found:
            client.delete_run(trial.info.run_id)


def log_trials(
    client: MlflowClient, experiment: str, parent: str, run: str, trials: list[Trial]
) -> None:
    """Log each trial as a child run: parameters, the metric after each fold, state and seconds.

    Args:
        client: of MLflow.
        experiment: the id of the experiment.
        parent: the id of the MLflow run of the version.
        run: the name of the training run.
        trials: of the search.

    Raises:
        MlflowException: MLflow did not answer, or refused.
    """
    for trial in sorted(trials, key=lambda each: each.number):
        started, ended = (round(1000 * x) for x in (trial.started, trial.started + trial.seconds))
        child = client.create_run(
            experiment,
            run_name=f"trial {trial.number}",
            start_time=started,
            tags={MLFLOW_PARENT_RUN_ID: parent, RUN_TAG: run, STATE_TAG: trial.state},
        ).info.run_id
        values = [
            Metric(trial.metric, value, ended, fold)
            for fold, value in enumerate(trial.values, start=1)
            if value is not None
        ]
        message = trial.message[:_MOST_CHARACTERS]
        client.log_batch(
            child,
            metrics=[*values, Metric("seconds", trial.seconds, ended, 0)],
            params=[Param(name, str(value)) for name, value in trial.parameters.items()],
            tags=[RunTag(MESSAGE_TAG, message)] if message else [],
        )
        client.set_terminated(child, _STATUS[trial.state], ended)
