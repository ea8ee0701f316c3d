"""What goes wrong while the load goes on: the same end state, and no request has failed."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from accounts import check_accounts
from faults import delete_pod, evict, held, kill_container, lasting, scaled_to_nothing
from installation import ROLLOUT, Installation
from kube import OURS, Json, items, until
from load import Load
from told import check_promotion, ended_well, newest, scenario, share

MODEL = "ai4i-failure"
SERVER, SIDECAR = "kserve-container", "drift"
PATIENCE = 240.0
STEP_SECONDS = 8.0

pytestmark = pytest.mark.skipif(
    not OURS, reason="programs of the node can be stopped on `make cluster` only"
)


@pytest.fixture(scope="module", autouse=True)
def longer_steps(installation: Installation) -> Iterator[None]:
    """Steps that last long enough for something to go wrong in each."""
    models = installation.values()["models"]
    for model in models.values():
        model["policies"]["rollout"] = {**ROLLOUT, "step_seconds": STEP_SECONDS}
    installation.install(models=models)
    yield
    installation.install()


@pytest.fixture(scope="module")
def load(installation: Installation) -> Iterator[Load]:
    """A steady load over all faults."""
    how = scenario(installation, MODEL)
    with Load(installation, MODEL, "faults", rate=40.0, scenario=how) as made:
        yield made


def test_a_run_whose_pod_is_evicted_ends_in_one_version(
    installation: Installation, load: Load
) -> None:
    before = len(installation.versions(MODEL, "gate-passed"))
    run = train(installation)
    first = until("the run's pod runs", lambda: running(installation, run), PATIENCE)
    evict(installation.training, first["metadata"]["name"])
    second = until("another pod of it runs", lambda: running(installation, run), PATIENCE)
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    until("the run has ended well", lambda: ended_well(installation, run), PATIENCE)
    assert len(installation.versions(MODEL, "gate-passed")) == before + 1
    load.check()


def test_a_rollout_goes_on_over_the_death_of_everything_in_it(
    installation: Installation, load: Load
) -> None:
    namespace, stable = installation.namespace, installation.model(MODEL)["production"]
    canary = newest(installation, MODEL)
    step(installation, canary, 10)
    component = "--selector=app.kubernetes.io/component=rollout"
    (controller,) = items("pods", component, f"--namespace={namespace}")
    delete_pod(namespace, controller["metadata"]["name"])
    load.check()

    step(installation, canary, 25)
    kill_container(namespace, server(installation, canary), SIDECAR)
    kill_container(namespace, server(installation, canary), SERVER)
    load.check()

    step(installation, canary, 50)
    delete_pod(namespace, server(installation, stable))
    load.check()

    check_promotion(installation, MODEL, canary)
    load.check()


def test_a_rollout_goes_on_over_outages_of_all_that_it_needs(
    installation: Installation, load: Load
) -> None:
    namespace, run = installation.namespace, train(installation)
    until("the run's pod runs", lambda: running(installation, run), PATIENCE)
    with held("kube-controller-manager"):
        lasting(load.check)
    until("the run has ended well", lambda: ended_well(installation, run), PATIENCE)
    canary = newest(installation, MODEL)
    outages: dict[int, Callable[[], AbstractContextManager[None]]] = {
        10: lambda: scaled_to_nothing(namespace, "statefulset/watchkeeper-postgresql"),
        25: lambda: scaled_to_nothing(namespace, "deployment/watchkeeper-mlflow"),
        50: lambda: held("kube-apiserver"),
    }
    for percent, outage in outages.items():
        step(installation, canary, percent)
        with outage():
            lasting(load.check)
        load.check()
    check_promotion(installation, MODEL, canary)
    load.check()


def test_no_request_has_failed_and_the_ledger_is_exact(
    installation: Installation, load: Load
) -> None:
    load.stop()
    check_accounts(installation, load)


def train(installation: Installation) -> str:
    run: str = installation.watchkeeper("train", MODEL)["run"]
    return run


def step(installation: Installation, version: int, percent: int) -> None:
    """Wait until a version has at least so much of the traffic; it must not have all of it yet."""
    until(
        f"{percent} % for version {version}",
        lambda: share(installation, MODEL, version) >= percent,
        PATIENCE,
    )
    assert share(installation, MODEL, version) < 100


def running(installation: Installation, run: str) -> Json | None:
    """Return the pod of a run that runs and is not about to end."""
    selector = f"--selector=batch.kubernetes.io/job-name={run}"
    for pod in items("pods", selector, f"--namespace={installation.training}"):
        if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]:
            return pod
    return None


def server(installation: Installation, version: int) -> str:
    """Name a pod that serves a version."""
    pods = installation.pods(MODEL, version)
    names: list[str] = [
        pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]
    ]
    return names[0]
