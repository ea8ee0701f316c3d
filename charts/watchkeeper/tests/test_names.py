"""Names and scheduling of releases: several releases in one cluster share no object."""

import json
import re
import shutil
from itertools import combinations
from typing import Any

import pytest
from rendering import (
    COMPONENTS,
    SCHEDULING,
    Json,
    containers,
    inference_services,
    only,
    pods,
    rendered,
)

# Release name, namespace, and values. "plant" with model "line-pump" and "plant-line" with model
# "pump" have the same text if it is joined by hyphens.
RELEASES: tuple[tuple[str, str, Json], ...] = (
    ("watchkeeper", "plant", {"models": {"line-pump": {}}}),
    ("watchkeeper", "plant-line", {"models": {"pump": {}}}),
    ("watchkeeper-plant", "line", {"models": {"pump": {}}}),
    ("east", "east", {"models": {"pump": {}}}),
    ("west", "west", {"models": {"pump": {}}, "fullnameOverride": "watchkeeper"}),
)
NAME = "line4"
MONITORING = {"monitoring": {"podMonitors": True, "rules": True, "dashboards": True}}
# The components of pods, and the values that apply to them.
PODS = {
    "postgresql": "postgresql",
    "backup": "postgresql",
    "mlflow": "mlflow",
    "rollout": "rollout",
    "cli": "cli",
    "hook": "cli",
    "test": "cli",
    "training": "training",
    "server": "serving",
}

pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on the PATH")


def identities(release: str, namespace: str, values: Json) -> set[tuple[str, str, str]]:
    return {
        (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"])
        for each in rendered(values, release=release, namespace=namespace)
    }


def test_releases_share_no_object() -> None:
    for one, other in combinations(RELEASES, 2):
        assert identities(*one) & identities(*other) == set(), (one, other)


def test_releases_do_not_overwrite_the_dashboards_of_others_in_one_grafana() -> None:
    found = [dashboard(*each) for each in (*RELEASES, ("watchkeeper", "p" * 60, {"models": {}}))]
    for values in zip(*found, strict=True):  # files, uids, titles
        assert len(set(values)) == len(found), values
    for file, uid, _ in found:
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", uid), "Grafana rejects other uids"
        assert file == f"{uid}.json"


def test_the_dashboard_of_the_default_installation_has_the_name_of_the_product() -> None:
    name = dashboard("watchkeeper", "watchkeeper", {})
    assert name == ("watchkeeper.json", "watchkeeper", "Watchkeeper")


def dashboard(release: str, namespace: str, values: Json) -> tuple[str, str, str]:
    """Return the file name, the uid and the title of a release's dashboard."""
    objects = rendered({**values, **MONITORING}, release=release, namespace=namespace)
    (found,) = (each for each in objects if each["metadata"]["name"].endswith("-dashboard"))
    ((file, text),) = found["data"].items()
    parsed = json.loads(text)
    return file, parsed["uid"], parsed["title"]


@pytest.mark.parametrize(
    ("release", "values", "name"),
    [
        ("watchkeeper", {}, "watchkeeper"),
        ("watchkeeper-east", {}, "watchkeeper-east"),
        ("east", {}, "east-watchkeeper"),
        ("east", {"nameOverride": "loop"}, "east-loop"),
        ("east", {"fullnameOverride": "loop"}, "loop"),
        ("e" * 50, {}, "e" * 40),
    ],
)
def test_the_name_of_an_installation_follows_the_release(
    release: str, values: Json, name: str
) -> None:
    objects = rendered(values, release=release)
    assert only(objects, "Deployment", f"{name}-rollout")
    assert only(objects, "ConfigMap", f"{name}-commands")


def test_every_name_and_reference_follows_fullname_override() -> None:
    values = {**MONITORING, "secrets": {"existing": "", "existingTraining": ""}}
    default = without_secrets(rendered(values))
    renamed = without_secrets(rendered({**values, "fullnameOverride": NAME}))
    assert json.dumps(renamed).count(NAME) > 100
    fixed = "user-of-mlflow"  # MLFLOW_TRACKING_USERNAME is a value of its own
    for objects in (default, renamed):
        for each in objects:
            for container, _ in containers(each):
                for variable in container.get("env", []):
                    if variable["name"].endswith("USERNAME"):
                        variable["value"] = fixed
    assert json.dumps(renamed).replace(NAME, "watchkeeper") == json.dumps(default)


def without_secrets(objects: list[Json]) -> list[Json]:
    """Remove the random values of Secrets."""
    for each in objects:
        if each["kind"] == "Secret":
            each["data"] = sorted(each["data"])
    return objects


def test_name_override_is_the_label_of_all_objects() -> None:
    objects = rendered({"nameOverride": "loop", "networkPolicies": {"enabled": False}})
    names = {each["metadata"]["labels"]["app.kubernetes.io/name"] for each in objects}
    assert names == {"loop"}


@pytest.mark.parametrize("component", PODS)
def test_scheduling_reaches_the_pods_of_a_component(component: str) -> None:
    objects = rendered({PODS[component]: SCHEDULING})
    found = [pod for name, pod in all_pods(objects) if name == component]
    assert found
    for pod in found:
        check_scheduled(pod)
        extra = {each["name"]: each for each in SCHEDULING["extraEnv"]}
        main = pod["spec"].get("model") or pod["spec"]["containers"][0]
        env = {each["name"]: each for each in main["env"]}
        assert env["HTTPS_PROXY"] == extra["HTTPS_PROXY"]
        assert env["PROXY_TOKEN"] == extra["PROXY_TOKEN"]
        assert env["NO_PROXY"].get("value", "") == ""
    others = [pod for name, pod in all_pods(objects) if PODS[name] != PODS[component]]
    assert others
    assert not any("nodeSelector" in pod["spec"] for pod in others)


def test_each_training_image_is_asked_for_the_models_that_it_trains() -> None:
    def asked(values: Json) -> dict[str, list[str]]:
        checks = containers(only(rendered(values), "Job", "watchkeeper-checks"))
        return {c["image"]: c["args"] for c, _ in checks if c["name"].startswith("models")}

    (models,) = asked({}).values()
    assert models == ["pump-failure"], "the other one has no source"
    own = {"training": {"image": "example.com/own:1"}, "source": {"secretName": "plant"}}
    assert asked({"models": {"pump-failure": {}, "own": own}})["example.com/own:1"] == ["own"]
    names = [each["metadata"]["name"] for each in rendered({"models": {"pump": {}}})]
    assert "watchkeeper-checks" not in names, "there is nothing to check"


def check_scheduled(pod: Json) -> None:
    spec: Json = pod["spec"]
    for key in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert spec[key] == SCHEDULING[key]
    annotations = pod["metadata"]["annotations"]
    assert annotations.items() >= SCHEDULING["podAnnotations"].items()


def test_the_environment_of_a_server_is_that_of_the_container_that_fetches_its_files() -> None:
    sidecar = [{"name": "OTHER", "value": "1"}]
    objects = rendered({"serving": {**SCHEDULING, "sidecarExtraEnv": sidecar}})
    storage = only(objects, "ClusterStorageContainer", "watchkeeper.plant.files")["spec"][
        "container"
    ]
    assert SCHEDULING["extraEnv"][0] in storage["env"]
    for service in inference_services(objects, "plant"):
        (container,) = service["spec"]["predictor"]["initContainers"]
        assert container["env"][-1:] == sidecar


def test_every_container_runs_as_the_given_user() -> None:
    security = {"runAsUser": 1234, "runAsGroup": 2345, "fsGroup": 3456}
    objects = rendered({"podSecurityContext": security})
    services = inference_services(objects, "plant")
    for _, pod in all_pods(objects):
        assert pod["spec"]["securityContext"].items() >= security.items()
    users = {
        container["securityContext"]["runAsUser"]
        for each in objects + services
        for container, _ in containers(each)
    }
    assert users == {1234}
    passwd = only(objects, "ConfigMap", "watchkeeper-postgresql")["data"]["passwd"]
    assert "watchkeeper:x:1234:2345:" in passwd
    (container,) = only(objects, "StatefulSet", "watchkeeper-postgresql")["spec"]["template"][
        "spec"
    ]["containers"]
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    assert mounts["/etc/passwd"] == "passwd"


def test_the_cluster_may_choose_users_and_groups() -> None:
    values: dict[str, Any] = {
        "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
        "postgresql": {"enabled": False},
        "secrets": {"existing": "credentials", "existingTraining": "credentials"},
    }
    objects = rendered(values)
    text = json.dumps(objects + inference_services(objects, "plant"))
    for field in ("runAsUser", "runAsGroup", "fsGroup"):
        assert f'"{field}"' not in text
        assert f'\\"{field}\\"' not in text


def test_the_defaults_neither_schedule_nor_annotate_pods() -> None:
    for _, pod in all_pods(rendered({})):
        spec: Json = pod["spec"]
        assert spec.keys().isdisjoint(("nodeSelector", "tolerations", "affinity"))
        assert "priorityClassName" not in spec
    assert set(PODS.values()) == set(COMPONENTS)


def all_pods(objects: list[Json]) -> list[tuple[str, Json]]:
    """Return the pods of workloads and those of InferenceServices, by component."""
    return [*pods(objects), *pods(inference_services(objects, "plant"))]
