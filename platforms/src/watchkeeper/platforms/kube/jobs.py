"""Training runs as Jobs. The Job has the name of the run, so a run happens once.

The pod comes from the template of the model's CronJob. The CronJob does not own the Job, because
its history limits would delete the Job and the run could happen a second time. The template's
``ttlSecondsAfterFinished`` defines how long Jobs remain.
"""

from watchkeeper.platforms.interface import PlatformError, RunState, TrainingRun
from watchkeeper.platforms.kube import pod_status
from watchkeeper.platforms.kube.api import CRON_JOB, JOB, POD, Api, Json
from watchkeeper.platforms.kube.labels import MODEL, PART_OF, WATCHKEEPER

TRIGGER = "watchkeeper/trigger"
POD_FAILURE_POLICY = "PodFailurePolicy"  # the reason of a Job that its policy has failed
JOB_NAME = "batch.kubernetes.io/job-name"  # a label of the pods of a Job


class TrainingJobs:
    """All training runs in a namespace."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def create(self, run: TrainingRun) -> bool:
        """Start a run; return False if a run of that name exists, in any state."""
        return self._api.create(JOB, job(self._template(run.model), run, self._api.namespace))

    def states(self, model: str) -> dict[str, RunState]:
        """Return the states of a model's runs by name."""
        return {job["metadata"]["name"]: state(job) for job in self._api.all(JOB, {MODEL: model})}

    def reason(self, run: str) -> str:
        """Return why a run has failed or does not start; "" if the cluster does not say."""
        job = self._api.find(JOB, run)
        return "" if job is None else self._reason(job)

    def _reason(self, job: Json) -> str:
        run = job["metadata"]["name"]
        if state(job) == "succeeded":
            return ""
        pods = self._api.all(POD, {JOB_NAME: run})
        if state(job) == "failed":
            return pod_status.termination_reason(pods) or _failure(job)
        if pod_status.is_running(pods):
            return ""
        names = [run, *(pod["metadata"]["name"] for pod in pods)]
        return (
            pod_status.unscheduled_reason(pods)
            or pod_status.waiting_reason(pods)
            or pod_status.warning_reason(e for name in names for e in self._api.events(name))
        )

    def is_refused(self, run: str) -> bool:
        """Return whether a run has failed by its policy for the exit code of a defect."""
        job = self._api.find(JOB, run)
        return job is not None and any(
            condition["type"] == "Failed" and condition.get("reason") == POD_FAILURE_POLICY
            for condition in job.get("status", {}).get("conditions", [])
        )

    def is_outdated(self, run: str) -> bool:
        """Return whether a run does not start, and the template of its model has changed since.

        The cause may be gone in the new template, such as the name of an image or of a Secret.
        """
        job = self._api.find(JOB, run)
        if job is None or state(job) != "running" or not self._reason(job):
            return False
        template = self._template(job["metadata"]["labels"][MODEL])
        return _pod(job["spec"]) != _pod(template["spec"])

    def log(self, run: str) -> str:
        """Return the command that prints the log of a run's last pod."""
        return f"kubectl logs -n {self._api.namespace} job/{run}"

    def _template(self, model: str) -> Json:
        name = cron_job_name(model)
        found = self._api.find(CRON_JOB, name)
        if found is None:
            raise PlatformError(
                f"namespace {self._api.namespace}: no CronJob {name}, whose template trains "
                f"{model}; add the model to the values of the chart"
            )
        template: Json = found["spec"]["jobTemplate"]
        return template


def cron_job_name(model: str) -> str:
    """Return the name of the CronJob with the template for a model's runs."""
    return f"{model}-training"


def job(template: Json, run: TrainingRun, namespace: str) -> Json:
    """Return the Job of a run: the template, with the run's arguments in its first container."""
    metadata, spec = template.get("metadata", {}), template["spec"]
    pod = spec["template"]
    training, *others = pod["spec"]["containers"]
    # kubelet expands $(NAME) in arguments; $$ means $.
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


def _pod(spec: Json) -> Json:
    """Return the pod of a Job's spec without the arguments, which differ from run to run."""
    pod: Json = spec["template"]["spec"]
    containers = [{**container, "args": []} for container in pod["containers"]]
    return {**pod, "containers": containers}


def _failure(job: Json) -> str:
    """Return what the Job itself says about its failure, such as a deadline."""
    for condition in job.get("status", {}).get("conditions", []):
        if condition["type"] == "Failed" and condition["status"] == "True":
            return f"{condition.get('reason', 'Failed')}: {condition.get('message', '')}"
    return ""


def state(job: Json) -> RunState:
    """Return the state of a Job; it is still running while its pods end."""
    for condition in job.get("status", {}).get("conditions", []):
        if condition["status"] == "True" and condition["type"] == "Complete":
            return "succeeded"
        if condition["status"] == "True" and condition["type"] == "Failed":
            return "failed"
    return "running"
