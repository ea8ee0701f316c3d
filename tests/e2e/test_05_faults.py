"""Faults of processes, pods and the node during a rollout: no request fails."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from declared_models import FIRST as MODEL
from faults import check_during, delete_pod, evict, kill_container, scaled_to_zero, stopped
from installation import RELEASE, ROLLOUT_POLICY, Installation
from kube import OWN_CLUSTER, Json, items, wait_until
from ledger_comparison import check_exact
from load import Load
from rollouts import (
    canary_percent,
    check_promotion,
    current_scenario,
    has_succeeded,
    newest_candidate,
)

from watchkeeper.core.events import GatePassed

SERVER, SIDECAR = "kserve-container", "drift"
WAIT_SECONDS = 240.0
STEP_SECONDS = 8.0

pytestmark = pytest.mark.skipif(
    not OWN_CLUSTER, reason="programs of the node can be stopped in `make cluster` only"
)


@pytest.fixture(scope="module", autouse=True)
def longer_steps(installation: Installation) -> Iterator[None]:
    """Canary steps that are long enough for a fault in each."""
    models = installation.values()["models"]
    for model in models.values():
        model["policies"]["rollout"] = {**ROLLOUT_POLICY, "step_seconds": STEP_SECONDS}
    installation.install(models=models)
    yield
    installation.install()


@pytest.fixture(scope="module")
def load(installation: Installation, longer_steps: None) -> Iterator[Load]:  # noqa: ARG001
    """A steady load over all faults."""
    scenario = current_scenario(installation, MODEL)
    with Load(installation, MODEL, "faults", rate=40.0, scenario=scenario) as made:
        yield made


def test_a_training_run_whose_pod_is_evicted_makes_one_version(
    installation: Installation, load: Load
) -> None:
    before = len(installation.versions(MODEL, GatePassed))
    run = train(installation)
    first = wait_until("the pod of the run", lambda: running_pod(installation, run), WAIT_SECONDS)
    evict(installation.training, first["metadata"]["name"])
    second = wait_until("another pod", lambda: running_pod(installation, run), WAIT_SECONDS)
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    wait_until("the run has succeeded", lambda: has_succeeded(installation, run), WAIT_SECONDS)
    assert len(installation.versions(MODEL, GatePassed)) == before + 1
    load.check()


def test_a_rollout_survives_the_death_of_every_process(
    installation: Installation, load: Load
) -> None:
    namespace, stable = installation.namespace, installation.model(MODEL)["production"]
    canary = newest_candidate(installation, MODEL)
    wait_for_step(installation, canary, 10)
    component = "--selector=app.kubernetes.io/component=rollout"
    (controller,) = items("pods", component, f"--namespace={namespace}")
    delete_pod(namespace, controller["metadata"]["name"])
    load.check()

    wait_for_step(installation, canary, 25)
    kill_container(namespace, server_pod(installation, canary), SIDECAR)
    kill_container(namespace, server_pod(installation, canary), SERVER)
    load.check()

    wait_for_step(installation, canary, 50)
    delete_pod(namespace, server_pod(installation, stable))
    load.check()

    check_promotion(installation, MODEL, canary)
    load.check()


def test_a_rollout_survives_outages_of_all_that_it_needs(
    installation: Installation, load: Load
) -> None:
    namespace, run = installation.namespace, train(installation)
    wait_until("the pod of the run", lambda: running_pod(installation, run), WAIT_SECONDS)
    with stopped("kube-controller-manager"):
        check_during(load.check)
    wait_until("the run has succeeded", lambda: has_succeeded(installation, run), WAIT_SECONDS)
    canary = newest_candidate(installation, MODEL)
    outages: dict[int, Callable[[], AbstractContextManager[None]]] = {
        10: lambda: scaled_to_zero(namespace, f"statefulset/{RELEASE}-postgresql"),
        25: lambda: scaled_to_zero(namespace, f"deployment/{RELEASE}-mlflow"),
        50: lambda: stopped("kube-apiserver"),
    }
    for percent, outage in outages.items():
        wait_for_step(installation, canary, percent)
        with outage():
            check_during(load.check)
        load.check()
    check_promotion(installation, MODEL, canary)
    load.check()


def test_no_request_has_failed_and_the_ledger_is_exact(
    installation: Installation, load: Load
) -> None:
    load.stop()
    check_exact(installation, load)


def train(installation: Installation) -> str:
    """Start a training run, and return its name."""
    run: str = installation.watchkeeper("train", MODEL)["run"]
    return run


def wait_for_step(installation: Installation, version: int, percent: int) -> None:
    """Wait until a version has at least this percentage; it must not have all traffic yet."""
    wait_until(
        f"{percent} % for version {version}",
        lambda: canary_percent(installation, MODEL, version) >= percent,
        WAIT_SECONDS,
    )
    assert canary_percent(installation, MODEL, version) < 100


def running_pod(installation: Installation, run: str) -> Json | None:
    """Return the pod of a training run that runs and does not terminate."""
    selector = f"--selector=batch.kubernetes.io/job-name={run}"
    for pod in items("pods", selector, f"--namespace={installation.training}"):
        if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]:
            return pod
    return None


def server_pod(installation: Installation, version: int) -> str:
    """Return the name of a pod that serves a version."""
    pods = installation.pods(MODEL, version)
    names: list[str] = [
        pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]
    ]
    return names[0]
