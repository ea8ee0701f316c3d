"""`helm upgrade` with new images trains each model once; `helm rollback` restores the release."""

import json
import secrets
from collections.abc import Iterator

import pytest
from declared_models import FIRST as MODEL
from declared_models import MODELS
from image_tags import add_tag, current_tag
from installation import RELEASE, Installation
from kube import OWN_CLUSTER, get, helm, items, kubectl, wait_until
from ledger_comparison import check_exact
from load import Load
from rollouts import check_promotion, current_scenario, job_result, newest_candidate

NEW_TAG = f"upgraded-{secrets.token_hex(3)}"
# The label of the chart's own objects, which those of the rollout controller do not have.
FROM_CHART = "--selector=app.kubernetes.io/managed-by=Helm"

pytestmark = pytest.mark.skipif(
    not OWN_CLUSTER, reason="images get another tag on the node of `make cluster` only"
)


@pytest.fixture(scope="module")
def load(installation: Installation) -> Iterator[Load]:
    """A steady load over upgrade and rollback."""
    scenario = current_scenario(installation, MODEL)
    with Load(installation, MODEL, "upgrade", rate=40.0, scenario=scenario) as made:
        yield made


@pytest.fixture(scope="module")
def revision(installation: Installation) -> str:
    """The release's revision before the upgrade."""
    releases = helm("history", RELEASE, f"--namespace={installation.namespace}", "--output=json")
    return str(json.loads(releases)[-1]["revision"])


def test_a_new_training_image_starts_one_run_for_each_model(
    installation: Installation, load: Load, revision: str
) -> None:
    assert revision
    before = runs(installation)
    add_tag(NEW_TAG)
    installation.install(images={"tag": NEW_TAG})
    wait_until(
        "each model has a new run",
        lambda: all(runs(installation)[model] - before[model] for model in MODELS),
        120.0,
    )
    wait_until("all runs have ended", lambda: all_ended(installation), 400.0)
    load.check()
    for model in MODELS:
        new = runs(installation)[model] - before[model]
        (run,) = new
        assert installation.model(model)["runs"][run] == "succeeded"
        assert image_of(installation, run).endswith(f":{NEW_TAG}")


def test_the_same_image_starts_no_run(installation: Installation, load: Load) -> None:
    before = runs(installation)
    installation.install(images={"tag": NEW_TAG})
    assert runs(installation) == before
    load.check()


def test_the_new_version_is_promoted(installation: Installation, load: Load) -> None:
    check_promotion(installation, MODEL, newest_candidate(installation, MODEL))
    load.check()


def test_rollback_restores_the_old_release(
    installation: Installation, load: Load, revision: str
) -> None:
    runs_before, servers_before = runs(installation), servers(installation)
    namespace = f"--namespace={installation.namespace}"
    helm("rollback", RELEASE, revision, namespace, "--wait", "--timeout=5m")
    load.check()
    old = current_tag()
    for workload in items("deployments,statefulsets", FROM_CHART, namespace):
        name, status = workload["metadata"]["name"], workload["status"]
        (container,) = workload["spec"]["template"]["spec"]["containers"]
        assert container["image"].endswith(f":{old}"), name
        wanted = workload["spec"]["replicas"]
        assert status["readyReplicas"] == status["updatedReplicas"] == wanted, name
    # The registry decides what serves, and the rollback restarts no server.
    assert servers(installation) == servers_before
    assert runs(installation) == runs_before
    assert installation.watchkeeper("status")["down"] == {}


def test_the_old_release_trains_from_its_cron_job(installation: Installation, load: Load) -> None:
    run = f"{MODEL}-training-{secrets.token_hex(3)}"
    namespace = f"--namespace={installation.training}"
    kubectl("create", "job", run, f"--from=cronjob/{MODEL}-training", namespace)
    wait_until("its run has ended", lambda: all_ended(installation), 300.0)
    assert installation.model(MODEL)["runs"][run] == "succeeded"
    assert image_of(installation, run).endswith(f":{current_tag()}")
    load.check()


def test_no_request_has_failed_and_the_ledger_is_exact(
    installation: Installation, load: Load
) -> None:
    check_promotion(installation, MODEL, newest_candidate(installation, MODEL))
    load.stop()
    check_exact(installation, load)


def test_the_old_release_passes_helm_test(installation: Installation) -> None:
    output = helm("test", RELEASE, f"--namespace={installation.namespace}", "--timeout=3m")
    assert "Succeeded" in output


def runs(installation: Installation) -> dict[str, set[str]]:
    """Return the names of all training Jobs by model."""
    return {
        model: {job["metadata"]["name"] for job in installation.jobs(model)} for model in MODELS
    }


def image_of(installation: Installation, run: str) -> str:
    """Return the image of a training run."""
    job = get("job", run, f"--namespace={installation.training}")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    image: str = container["image"]
    return image


def all_ended(installation: Installation) -> bool:
    """Return True if no training Job runs."""
    return all(job_result(job) for model in MODELS for job in installation.jobs(model))


def servers(installation: Installation) -> dict[str, list[int]]:
    """Return the restarts of the pods of production, by the uid of each pod."""
    version = installation.model(MODEL)["production"]
    pods = installation.pods(MODEL, version)
    return {pod["metadata"]["uid"]: installation.restarts(MODEL, version) for pod in pods}
