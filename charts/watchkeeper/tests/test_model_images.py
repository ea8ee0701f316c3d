"""A model may name the images of its training Jobs and of its servers."""

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from cluster import kubectl
from rendering import CHART, MODEL, OTHER, helm, inference_services, only, rendered
from waiting import wait_for

from watchkeeper.platforms import TrainingRun
from watchkeeper.platforms.kube.jobs import job

IMAGE = f"registry.example.com:5000/models/pump@sha256:{'a' * 64}"
SERVING = "registry.example.com/pump-serving:1.0"
OWN = {
    MODEL: {
        "source": {"secretName": "plant"},
        "training": {"image": IMAGE},
        "serving": {"image": SERVING},
    },
    OTHER: {"source": {"secretName": "plant"}},
}

pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on PATH")


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    return rendered({"models": OWN, "images": {"tag": "1.2.3"}})


def training(objects: list[dict[str, Any]], model: str) -> dict[str, Any]:
    cron_job = only(objects, "CronJob", f"{model}-training")
    (container,) = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return dict(container)


def variable(container: dict[str, Any], name: str) -> str:
    (value,) = (each["value"] for each in container["env"] if each["name"] == name)
    return str(value)


def test_a_model_with_an_image_is_trained_by_it_and_others_by_ours(
    objects: list[dict[str, Any]],
) -> None:
    assert training(objects, MODEL)["image"] == IMAGE
    assert training(objects, OTHER)["image"].endswith("/watchkeeper-training:1.2.3")


def test_a_new_image_of_a_model_is_new_code_of_that_model_only(
    objects: list[dict[str, Any]],
) -> None:
    assert variable(training(objects, MODEL), "WATCHKEEPER_CODE_VERSION") == IMAGE
    assert variable(training(objects, OTHER), "WATCHKEEPER_CODE_VERSION") == "1.2.3"
    deployment = only(objects, "Deployment", "watchkeeper-rollout")
    (rollout,) = deployment["spec"]["template"]["spec"]["containers"]
    assert json.loads(variable(rollout, "WATCHKEEPER_CODE_VERSIONS")) == {MODEL: IMAGE}
    assert variable(rollout, "WATCHKEEPER_CODE_VERSION") == "1.2.3"


def test_the_controller_knows_which_versions_of_mlflow_a_model_adopts() -> None:
    rule = {"model": "pumps of others", "when": "each"}
    adopting = {MODEL: {**OWN[MODEL], "adopt": rule}, OTHER: OWN[OTHER]}
    found = only(rendered({"models": adopting}), "Deployment", "watchkeeper-rollout")
    (rollout,) = found["spec"]["template"]["spec"]["containers"]
    assert json.loads(variable(rollout, "WATCHKEEPER_ADOPT")) == {MODEL: rule}


def test_the_admission_policy_of_a_model_knows_its_image(objects: list[dict[str, Any]]) -> None:
    for model, own in ((MODEL, True), (OTHER, False)):
        policy = only(objects, "ValidatingAdmissionPolicy", f"watchkeeper.plant.{model}")
        (wanted,) = (
            each["expression"] for each in policy["spec"]["variables"] if each["name"] == "wanted"
        )
        assert (IMAGE in wanted) == own


def test_new_versions_of_a_model_are_served_by_its_image(objects: list[dict[str, Any]]) -> None:
    images = {
        service["metadata"]["name"]: service["spec"]["predictor"]["model"]["image"]
        for service in inference_services(objects, "plant")
    }
    assert images[f"{MODEL}-v1"] == SERVING
    assert images[f"{OTHER}-v1"].endswith("/watchkeeper-serving:1.2.3")


@pytest.mark.parametrize("image", ["pump", "Pump:1", "pump@sha256:abc", "pump:1 --privileged"])
def test_an_image_without_a_tag_or_a_digest_is_rejected(image: str) -> None:
    values = json.dumps({"models": {MODEL: {"training": {"image": image}}}})
    done = helm("template", "watchkeeper", str(CHART), "--values=-", given=values)
    assert done.returncode != 0
    assert f"/models/{MODEL}/training/image" in done.stderr.replace(".", "/")


@pytest.fixture(scope="module")
def installed(namespace: str) -> Iterator[list[dict[str, Any]]]:
    """The rights of the sidecars and the admission policies, on the cluster."""
    shown = ("--show-only=templates/access.yaml", "--show-only=templates/training.yaml")
    found = rendered({"models": OWN}, *shown, namespace=namespace)
    given = yaml.safe_dump_all(each for each in found if each["kind"] != "Namespace")
    try:
        kubectl("apply", "--server-side", "--filename=-", given=given).check_returncode()
        yield found
    finally:
        # Other tests install the same objects into this namespace, without creating them.
        kubectl("delete", "--ignore-not-found", "--filename=-", given=given).check_returncode()


def start(objects: list[dict[str, Any]], namespace: str, image: str) -> str:
    """Ask for a Job of the model as its sidecar, without creating it; return the error."""
    template = only(objects, "CronJob", f"{MODEL}-training")["spec"]["jobTemplate"]
    run = TrainingRun(f"{MODEL}-v1-a1", MODEL, "drift")
    asked = job(template, run, f"{namespace}-training")
    asked["spec"]["template"]["spec"]["containers"][0]["image"] = image
    sidecar = f"--as=system:serviceaccount:{namespace}:{MODEL}-serving"
    given = json.dumps({"apiVersion": "batch/v1", "kind": "Job", **asked})
    return kubectl("create", sidecar, "--dry-run=server", "--filename=-", given=given).stderr


def test_a_sidecar_starts_the_image_of_its_model_and_no_other(
    installed: list[dict[str, Any]], namespace: str
) -> None:
    other = training(installed, OTHER)["image"]

    def is_refused() -> bool:  # a policy takes effect some seconds after it was written
        return "only the arguments of the Job's one container may differ" in start(
            installed, namespace, other
        )

    wait_for(is_refused, 60.0)
    assert start(installed, namespace, IMAGE) == ""
