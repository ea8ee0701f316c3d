"""States of rollouts and training runs, and checks of a promotion."""

from installation import ROLLOUT_POLICY, Installation
from kube import Json, get, items, wait_until

from watchkeeper.core.events import GatePassed, Promoted
from watchkeeper.core.names import serving_name
from watchkeeper.demo.plants import STEADY, find
from watchkeeper.demo.shares import LEVEL, p_value

PROMOTION_SECONDS = 300.0


def current_scenario(installation: Installation, model: str) -> str:
    """Return the scenario that production has learned: that of the drift, if the model drifted."""
    return find(model).drift if installation.episodes(model) else STEADY


def newest_candidate(installation: Installation, model: str) -> int:
    """Return the newest version that passed the gate."""
    return max(installation.versions(model, GatePassed))


def canary_percent(installation: Installation, model: str, version: int) -> int:
    """Return the traffic percentage of a version.

    It reads the route, because a step is too short for `watchkeeper status`.
    """
    route = get("httproute", model, f"--namespace={installation.namespace}")
    name = f"{serving_name(model, version)}-predictor"
    weights = {each["name"]: each["weight"] for each in route["spec"]["rules"][-1]["backendRefs"]}
    return int(weights.get(name, 0))


def check_promotion(installation: Installation, model: str, version: int) -> None:
    """Wait for the promotion of a version, and check it.

    The version passed each step once, each step had its share of the traffic, and in the end the
    version has all traffic and as many pods as configured.
    """
    wait_until(
        f"version {version} of {model} is promoted",
        lambda: version in installation.versions(model, Promoted),
        PROMOTION_SECONDS,
    )
    steps = installation.steps(model, version)
    assert [(step.percent, step.verdict) for step in steps] == [
        (percent, "pass") for percent in ROLLOUT_POLICY["steps"]
    ]
    assert p_value(steps) >= LEVEL, steps
    wait_until(
        f"the watch of version {version} of {model} is over, and no other version is served",
        lambda: serves_alone(installation, model, version),
        120.0,
    )


def job_result(job: Json) -> str | None:
    """Return "Complete" or "Failed", or None while the Job runs."""
    for condition in job["status"].get("conditions", []):
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return str(condition["type"])
    return None


def has_succeeded(installation: Installation, run: str) -> bool:
    """Return True if a training run is complete.

    Raises:
        AssertionError: it has failed.
    """
    result = job_result(get("job", run, f"--namespace={installation.training}"))
    assert result != "Failed", f"run {run} has failed"
    return result == "Complete"


def serves_alone(installation: Installation, model: str, version: int) -> bool:
    """Return True if a version has all traffic, no other is served, and all its pods are ready."""
    namespace = f"--namespace={installation.namespace}"
    pods = items("pods", f"--selector=watchkeeper/model={model}", namespace)
    # `watchkeeper status` uses a core for a second, so check the pods first.
    if any(pod["metadata"]["labels"]["watchkeeper/version"] != str(version) for pod in pods):
        return False
    return status_is_final(installation.model(model), version) and all(
        condition["status"] == "True"
        for pod in pods
        for condition in pod["status"]["conditions"]
        if condition["type"] == "Ready"
    )


def status_is_final(status: Json, version: int) -> bool:
    """Return True if a model's status has this version in production, and no other served."""
    serving = {each["version"]: each["state"] for each in status["serving"]}
    return bool(
        status["weights"] == {str(version): 100}
        and status["production"] == version
        and status["confirmed"]
        and serving == {version: "ready"}
    )
