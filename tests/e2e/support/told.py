"""What rollouts and plants of the story have in common."""

from installation import ROLLOUT, Installation
from kube import Json, get, items, until

from watchkeeper.contracts.names import serving_name
from watchkeeper.demo.shares import LEVEL, p_value
from watchkeeper.demo.worlds import STEADY, find


def scenario(installation: Installation, model: str) -> str:
    """Return how a model's plant works: as it drifted, if it did, and production learnt by now."""
    return find(model).drift if installation.episodes(model) else STEADY


def newest(installation: Installation, model: str) -> int:
    """Return the newest version that is past its gate."""
    return max(installation.versions(model, "gate-passed"))


def share(installation: Installation, model: str, version: int) -> int:
    """Return the percent of the traffic that a version's route gives it; steps are over soon, so
    the route itself is asked.
    """
    route = get("httproute", model, f"--namespace={installation.namespace}")
    name = f"{serving_name(model, version)}-predictor"
    weights = {one["name"]: one["weight"] for one in route["spec"]["rules"][-1]["backendRefs"]}
    return int(weights.get(name, 0))


def check_promotion(installation: Installation, model: str, version: int) -> None:
    """Wait for the end of a rollout: the version passed each step once, with its share of the
    traffic, and has all of it now, with as many pods as wanted.
    """
    until(
        f"version {version} of {model} is promoted",
        lambda: version in installation.versions(model, "promoted"),
        300.0,
    )
    made = installation.steps(model, version)
    assert [(step.percent, step.verdict) for step in made] == [
        (percent, "pass") for percent in ROLLOUT["steps"]
    ]
    assert p_value(made) >= LEVEL, made
    until(
        f"its watch is over, and {model} has nothing else",
        lambda: settled(installation, model, version),
        120.0,
    )


def ended(job: Json) -> str | None:
    """Return how a Job has ended, "Complete" or "Failed"; None while it has not."""
    for condition in job["status"].get("conditions", []):
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return str(condition["type"])
    return None


def ended_well(installation: Installation, run: str) -> bool:
    """Tell whether a training run has ended; it must not have failed."""
    outcome = ended(get("job", run, f"--namespace={installation.training}"))
    assert outcome != "Failed", f"run {run} has failed"
    return outcome == "Complete"


def settled(installation: Installation, model: str, version: int) -> bool:
    """Tell whether a version alone serves, and all of its pods are ready."""
    place = f"--namespace={installation.namespace}"
    pods = items("pods", f"--selector=watchkeeper/model={model}", place)
    # `status` takes a second of a core, which all of the cluster waits for: not before it can be so
    if any(pod["metadata"]["labels"]["watchkeeper/version"] != str(version) for pod in pods):
        return False
    told = installation.model(model)
    serving = {one["version"]: one["state"] for one in told["serving"]}
    return (
        told["weights"] == {str(version): 100}
        and told["production"] == version
        and told["confirmed"]
        and serving == {version: "ready"}
        and all(
            condition["status"] == "True"
            for pod in pods
            for condition in pod["status"]["conditions"]
            if condition["type"] == "Ready"
        )
    )
