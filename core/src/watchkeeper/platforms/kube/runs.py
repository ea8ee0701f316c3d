"""Training runs: Jobs from the template of the model's CronJob, each once by its name.

They belong to no CronJob, or its limits of history would remove them, and a run could happen
twice: the template says by ``ttlSecondsAfterFinished`` how long they stay.
"""

from watchkeeper.platforms.interface import PlatformError, Run, RunState
from watchkeeper.platforms.kube.api import CRON_JOB, JOB, Api, Json
from watchkeeper.platforms.kube.labels import MODEL, PART_OF, WATCHKEEPER

TRIGGER = "watchkeeper/trigger"


class Runs:
    """All training runs in a namespace."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def create(self, run: Run) -> bool:
        """Start a run; False when one of its name exists, whatever became of it."""
        return self._api.create(JOB, job(self._template(run.model), run, self._api.namespace))

    def states(self, model: str) -> dict[str, RunState]:
        """Return what became of a model's runs."""
        return {job["metadata"]["name"]: state(job) for job in self._api.all(JOB, {MODEL: model})}

    def _template(self, model: str) -> Json:
        name = cron_job_name(model)
        found = self._api.find(CRON_JOB, name)
        if found is None:
            raise PlatformError(
                f"namespace {self._api.namespace}: there is no CronJob {name} to train {model} by; "
                "name the model in the values of the chart"
            )
        template: Json = found["spec"]["jobTemplate"]
        return template


def cron_job_name(model: str) -> str:
    """Name the CronJob whose template a model's runs are made from."""
    return f"{model}-training"


def job(template: Json, run: Run, namespace: str) -> Json:
    """Describe the Job of a run: the template, whose first container gets the run's arguments."""
    metadata, spec = template.get("metadata", {}), template["spec"]
    pod = spec["template"]
    training, *others = pod["spec"]["containers"]
    # A Job's texts have variables like $(NAME); $$ is how they spell $.
    arguments = [word.replace("$", "$$") for word in run.arguments()]
    containers = [{**training, "args": arguments}, *others]
    labels = {PART_OF: WATCHKEEPER, MODEL: run.model}
    pod_metadata = pod.get("metadata", {})
    return {
        "metadata": {
            "name": run.name,
            "namespace": namespace,
            "labels": {**metadata.get("labels", {}), **labels},
            "annotations": {**metadata.get("annotations", {}), TRIGGER: run.trigger},
        },
        "spec": {
            **spec,
            "template": {
                "metadata": {
                    **pod_metadata,
                    "labels": {**pod_metadata.get("labels", {}), **labels},
                },
                "spec": {**pod["spec"], "containers": containers},
            },
        },
    }


def state(job: Json) -> RunState:
    """Tell what became of a Job; while pods of it end it is still running."""
    for condition in job.get("status", {}).get("conditions", []):
        if condition["status"] == "True" and condition["type"] == "Complete":
            return "succeeded"
        if condition["status"] == "True" and condition["type"] == "Failed":
            return "failed"
    return "running"
