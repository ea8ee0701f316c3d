"""`helm uninstall` keeps servers and data; a new install uses them; the notes delete all."""

import pytest
from declared_models import FIRST as MODEL
from declared_models import MODELS
from installation import RELEASE, Installation
from kube import get, helm, items, kubectl, run_command, wait_until

SERVERS = "--selector=app.kubernetes.io/component=server"
# Objects of every namespace, and objects of the tests.
EXPECTED_REST = {
    "configmap/kube-root-ca.crt",
    "serviceaccount/default",
    "secret/plant",
    "service/watchkeeper-postgresql-outside",
    "endpoints/watchkeeper-postgresql-outside",
    *(f"pod/offline-{model}" for model in MODELS),
}
# They disappear by themselves.
TRANSIENT = ("events", "events.events.k8s.io", "endpointslices.discovery.k8s.io")


def test_a_new_install_continues_with_the_servers(
    installation: Installation,
) -> None:
    namespace = f"--namespace={installation.namespace}"
    before, runs = servers(installation), jobs(installation)
    assert before
    assert policies(installation)
    uninstall(installation)
    assert policies(installation) == set()
    assert servers(installation) == before
    installation.install()
    renewed = lease(namespace)["renewTime"]
    wait_until(
        "a sidecar that kept running watches again",
        lambda: lease(namespace)["renewTime"] > renewed and lease(namespace),
    )
    assert lease(namespace)["holderIdentity"].rpartition("_")[0] in before
    assert servers(installation) == before
    assert jobs(installation) == runs


def test_the_commands_of_the_notes_delete_the_rest(installation: Installation) -> None:
    if installation.persistent:
        pytest.skip("this installation is not removed")
    words = ("get", "notes", RELEASE, f"--namespace={installation.namespace}")
    commands = helm(*words).partition("\n  kubectl delete ")
    uninstall(installation)
    run_command("sh", "-ec", "".join(commands[1:]), seconds=300.0)
    for namespace in (installation.namespace, installation.training):
        wait_until(
            f"nothing is left in {namespace}",
            lambda namespace=namespace: not left(namespace),
            seconds=120,
        )
    assert policies(installation) == set()
    containers = items("clusterstoragecontainers")
    assert not any(installation.namespace in each["metadata"]["name"] for each in containers)


def uninstall(installation: Installation) -> None:
    namespace = f"--namespace={installation.namespace}"
    helm("uninstall", RELEASE, namespace, "--wait", "--timeout=3m", seconds=200.0)


def servers(installation: Installation) -> dict[str, str]:
    """Return the uids of the pods that serve, by name."""
    found = items("pods", SERVERS, f"--namespace={installation.namespace}")
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in found}


def jobs(installation: Installation) -> set[str]:
    """Return the training Jobs, without those of a schedule, which their CronJob owns."""
    return {
        job["metadata"]["name"]
        for model in MODELS
        for job in installation.jobs(model)
        if "ownerReferences" not in job["metadata"]
    }


def policies(installation: Installation) -> set[str]:
    names = {each["metadata"]["name"] for each in items("validatingadmissionpolicies")}
    return {name for name in names if name.startswith(f"{RELEASE}.{installation.namespace}.")}


def lease(namespace: str) -> dict[str, str]:
    """Return the lease of the sidecar that watches the version in production."""
    route = get("httproute", MODEL, namespace)
    (backend, *_) = route["spec"]["rules"][0]["backendRefs"]
    name = backend["name"].removesuffix("-predictor")
    spec: dict[str, str] = get("lease", f"watch-{name}", namespace)["spec"]
    return spec


def left(namespace: str) -> set[str]:
    """Return the objects in a namespace that should not be there."""
    kinds = kubectl("api-resources", "--namespaced", "--verbs=list,get", "--output=name").split()
    wanted = ",".join(kind for kind in kinds if kind not in TRANSIENT)
    words = ("--ignore-not-found", f"--namespace={namespace}", "--output=name")
    return set(kubectl("get", wanted, *words).split()) - EXPECTED_REST
