"""helm upgrade with a new training image trains each model once; helm rollback goes back."""

import json
import secrets
from collections.abc import Iterator

import pytest
from accounts import check_accounts
from installation import RELEASE, Installation
from kube import OURS, get, helm, items, kubectl, until
from load import Load
from retag import tag_again, tag_of_images
from told import check_promotion, ended, newest, scenario

MODELS = ("ai4i-failure", "warranty-risk")
MODEL = MODELS[0]  # has the load
NEW_TAG = f"upgraded-{secrets.token_hex(3)}"
# The chart's own pods have it, the servers that rollout and KServe make have not.
CHART = "--selector=app.kubernetes.io/managed-by=Helm"

pytestmark = pytest.mark.skipif(
    not OURS, reason="images get another tag on the node of `make cluster` only"
)


@pytest.fixture(scope="module")
def load(installation: Installation) -> Iterator[Load]:
    """A steady load over upgrade and rollback."""
    how = scenario(installation, MODEL)
    with Load(installation, MODEL, "upgrade", rate=40.0, scenario=how) as made:
        yield made


@pytest.fixture(scope="module")
def revision(installation: Installation) -> str:
    """The release's revision before the upgrade."""
    told = helm("history", RELEASE, f"--namespace={installation.namespace}", "--output=json")
    return str(json.loads(told)[-1]["revision"])


def test_a_new_training_image_starts_one_run_for_each_model(
    installation: Installation, load: Load, revision: str
) -> None:
    assert revision
    before = runs(installation)
    tag_again(NEW_TAG)
    installation.install(images={"tag": NEW_TAG})
    until("all runs have ended", lambda: all_ended(installation), 400.0)
    load.check()
    for model in MODELS:
        new = runs(installation)[model] - before[model]
        (run,) = new
        assert installation.model(model)["runs"][run] == "succeeded"
        assert image_of(installation, run).endswith(f":{NEW_TAG}")


def test_the_same_image_again_starts_none(installation: Installation, load: Load) -> None:
    before = runs(installation)
    installation.install(images={"tag": NEW_TAG})
    assert runs(installation) == before
    load.check()


def test_the_new_version_takes_over(installation: Installation, load: Load) -> None:
    check_promotion(installation, MODEL, newest(installation, MODEL))
    load.check()


def test_rollback_brings_the_old_release_back(
    installation: Installation, load: Load, revision: str
) -> None:
    runs_before, servers_before = runs(installation), servers(installation)
    place = f"--namespace={installation.namespace}"
    helm("rollback", RELEASE, revision, place, "--wait", "--timeout=5m")
    load.check()
    old = tag_of_images()
    for workload in items("deployments,statefulsets", CHART, place):
        name, status = workload["metadata"]["name"], workload["status"]
        (container,) = workload["spec"]["template"]["spec"]["containers"]
        assert container["image"].endswith(f":{old}"), name
        wanted = workload["spec"]["replicas"]
        assert status["readyReplicas"] == status["updatedReplicas"] == wanted, name
    # what serves is the registry's business, and no pod of it was touched
    assert servers(installation) == servers_before
    assert runs(installation) == runs_before
    assert installation.watchkeeper("status")["down"] == {}


def test_the_old_release_trains_by_its_schedule_s_job(
    installation: Installation, load: Load
) -> None:
    run = f"{MODEL}-training-{secrets.token_hex(3)}"
    place = f"--namespace={installation.training}"
    kubectl("create", "job", run, f"--from=cronjob/{MODEL}-training", place)
    until("its run has ended", lambda: all_ended(installation), 300.0)
    assert installation.model(MODEL)["runs"][run] == "succeeded"
    assert image_of(installation, run).endswith(f":{tag_of_images()}")
    load.check()


def test_no_request_has_failed_and_the_ledger_is_exact(
    installation: Installation, load: Load
) -> None:
    check_promotion(installation, MODEL, newest(installation, MODEL))
    load.stop()
    check_accounts(installation, load)


def test_the_old_release_answers(installation: Installation) -> None:
    said = helm("test", RELEASE, f"--namespace={installation.namespace}", "--timeout=3m")
    assert "Succeeded" in said


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
    return all(ended(job) for model in MODELS for job in installation.jobs(model))


def servers(installation: Installation) -> dict[str, list[int]]:
    """Return the pods of what is in production, and how often their containers were restarted."""
    version = installation.model(MODEL)["production"]
    pods = installation.pods(MODEL, version)
    return {pod["metadata"]["uid"]: installation.restarts(MODEL, version) for pod in pods}
