"""helm uninstall leaves what serves, installing again goes on with it, and the notes remove it."""

import pytest
from installation import RELEASE, Installation
from kube import ask, get, helm, items, kubectl, until

MODELS = ("ai4i-failure", "warranty-risk")
MODEL = MODELS[0]
SERVERS = "--selector=app.kubernetes.io/component=server"
# What is in every namespace, and what these tests have made.
ALWAYS = {
    "configmap/kube-root-ca.crt",
    "serviceaccount/default",
    "secret/plant",
    "service/watchkeeper-postgresql-outside",
    "endpoints/watchkeeper-postgresql-outside",
    *(f"pod/offline-{model}" for model in MODELS),
}
# They go by themselves, some later.
PASSING = ("events", "events.events.k8s.io", "endpointslices.discovery.k8s.io")


def test_a_release_that_is_installed_again_goes_on_with_what_serves(
    installation: Installation,
) -> None:
    place = f"--namespace={installation.namespace}"
    # a rollout may be under way: of the model that nobody asks now it waits for traffic
    until("nothing starts", lambda: not any(starts(installation, each) for each in MODELS), 240.0)
    before, runs = servers(installation), jobs(installation)
    assert before
    assert policies(installation)
    uninstall(installation)
    assert policies(installation) == set()
    assert servers(installation) == before
    installation.install()
    renewed = lease(place)["renewTime"]
    until(
        "a sidecar that served all along watches again",
        lambda: lease(place)["renewTime"] > renewed and lease(place),
    )
    assert lease(place)["holderIdentity"].rpartition("_")[0] in before
    assert servers(installation) == before
    assert jobs(installation) == runs


def test_the_notes_tell_how_to_remove_the_rest(installation: Installation) -> None:
    if installation.lasting:
        pytest.skip("this installation is to stay")
    words = ("get", "notes", RELEASE, f"--namespace={installation.namespace}")
    commands = helm(*words).partition("\n  kubectl delete ")
    uninstall(installation)
    ask("sh", "-ec", "".join(commands[1:]), seconds=300.0)
    for namespace in (installation.namespace, installation.training):
        until(
            f"nothing is left in {namespace}", lambda space=namespace: not left(space), seconds=120
        )
    assert policies(installation) == set()


def starts(installation: Installation, model: str) -> bool:
    """Tell whether anything trains, or comes or goes among the servers."""
    trains = any(job["status"].get("active") for job in installation.jobs(model))
    return trains or any(one["state"] != "ready" for one in installation.model(model)["serving"])


def uninstall(installation: Installation) -> None:
    place = f"--namespace={installation.namespace}"
    helm("uninstall", RELEASE, place, "--wait", "--timeout=3m", seconds=200.0)


def servers(installation: Installation) -> dict[str, str]:
    """Return the pods that serve, with what tells a pod from one that took its place."""
    found = items("pods", SERVERS, f"--namespace={installation.namespace}")
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in found}


def jobs(installation: Installation) -> set[str]:
    """Return the training Jobs, but for those of a schedule, which go with their CronJob."""
    return {
        job["metadata"]["name"]
        for model in MODELS
        for job in installation.jobs(model)
        if "ownerReferences" not in job["metadata"]
    }


def policies(installation: Installation) -> set[str]:
    names = {one["metadata"]["name"] for one in items("validatingadmissionpolicies")}
    return {name for name in names if name.startswith(f"watchkeeper-{installation.namespace}-")}


def lease(place: str) -> dict[str, str]:
    """Return who watches the version in production, and since when."""
    route = get("httproute", MODEL, place)
    (backend, *_) = route["spec"]["rules"][0]["backendRefs"]
    name = backend["name"].removesuffix("-predictor")
    spec: dict[str, str] = get("lease", f"watch-{name}", place)["spec"]
    return spec


def left(namespace: str) -> set[str]:
    """Return all objects in a namespace but those that are always there."""
    kinds = kubectl("api-resources", "--namespaced", "--verbs=list,get", "--output=name").split()
    wanted = ",".join(kind for kind in kinds if kind not in PASSING)
    words = ("--ignore-not-found", f"--namespace={namespace}", "--output=name")
    return set(kubectl("get", wanted, *words).split()) - ALWAYS
