"""Which container gets which credential, and that none is an environment variable."""

import json
import shutil
from base64 import b64decode
from collections import defaultdict
from collections.abc import Iterator

import pytest
from cluster import kubectl, remove
from rendering import (
    MODEL,
    MODELS,
    OTHER,
    Json,
    containers,
    inference_services,
    installed,
    only,
    rendered,
)
from sqlalchemy import make_url

NAMESPACE = "plant"
EXISTING: Json = {"secrets": {"existing": "mine", "existingTraining": "theirs"}}
FILES = "/run/secrets/watchkeeper"
OWNERS = ("ledger-url", "database-password")

pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on PATH")


def keys_by_container(objects: list[Json]) -> dict[str, set[str]]:
    """Return the keys of mounted Secrets by container; that of a sidecar has the model's name."""
    found: dict[str, set[str]] = defaultdict(set)
    for each in [*objects, *inference_services(objects, NAMESPACE)]:
        for container, volumes in containers(each):
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            name = container["name"]
            if name == "drift":
                name = f"{name} of {each['metadata']['name'].removesuffix('-v1')}"
            for volume in volumes:
                if volume["name"] in mounted and "secret" in volume:
                    found[name] |= {item["key"] for item in volume["secret"].get("items", [])}
    return found


@pytest.mark.parametrize("values", [{}, EXISTING])
def test_each_container_has_only_the_credentials_that_it_needs(values: Json) -> None:
    found = keys_by_container(rendered(values))
    own = {model: model for model in (MODEL, OTHER)}
    if values:
        own = dict.fromkeys(own, "ledger-writer-url")
    for model, key in own.items():
        assert found[f"drift of {model}"] == {key}
    for name in ("rollout", "cli"):
        assert found[name] == {"ledger-reader-url", "mlflow-password"}
    assert found["training"] == {"ledger-reader-url", "mlflow-training-password", "url"}
    users = {"mlflow-password", "mlflow-serving-password", "mlflow-training-password"}
    assert found["mlflow"] == {"mlflow-url", *users}
    assert found["kserve-container"] == {"signing-key", "feedback-token"}
    assert found["ledger"] == {"ledger-url", "ledger-reader-url", *own.values()}
    assert found["mlflow-owner"] == {"ledger-url", "mlflow-url"}
    # Before an install the keys of a given Secret are checked, all of them at once.
    assert ("secrets" in found) == bool(values)
    holders = {name for name, keys in found.items() if keys.intersection(OWNERS)} - {"secrets"}
    assert holders == {"ledger", "mlflow-owner", "postgresql", "backup", "restore"}


@pytest.mark.parametrize(
    "changes",
    [
        {"models": {MODEL: {"ledgerKey": "pumps"}, OTHER: {}}},
        {"models": {MODEL: {"ledgerKey": "pumps"}}, "postgresql": {"enabled": False}},
        {"mlflow": {"enabled": False, "url": "http://mlflow.example.com:5000"}},
        {"mlflow": {"auth": {"enabled": False}}},
    ],
)
def test_the_keys_that_pods_mount_from_a_given_secret_are_checked_before_an_install(
    changes: Json,
) -> None:
    objects = rendered({**EXISTING, "gateway": {"createTokenSecret": False}, **changes})
    check = only(objects, "Job", "watchkeeper-checks")
    assert check["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    (container,) = (c for c, _ in containers(check) if c["name"] == "secrets")
    folder, *words = container["args"]
    services = inference_services(objects, NAMESPACE)
    mounted = {
        f"mine/{item['key']}"
        for each in [*objects, *services]
        if each is not check
        for _, volumes in containers(each)
        for volume in volumes
        if volume.get("secret", {}).get("secretName") == "mine"
        if not volume["secret"].get("optional")
        for item in volume["secret"]["items"]
    }
    assert len(words) == len(set(words))
    assert set(words) == {*mounted, "watchkeeper-gateway/credential"}
    pod = check["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"] if "secret" in volume}
    files = {
        f"{mount['mountPath']}/{item['path']}"
        for mount in container["volumeMounts"]
        if (volume := volumes.get(mount["name"]))
        for item in volume["secret"]["items"]
    }
    assert files == {f"{folder}/{word}" for word in words}
    assert all(volume["secret"]["optional"] for volume in volumes.values()), "or the pod waits"


def test_a_model_may_name_the_key_of_its_writer() -> None:
    values = {**EXISTING, "models": {MODEL: {"ledgerKey": "pumps"}, OTHER: {}}}
    found = keys_by_container(rendered(values))
    assert found[f"drift of {MODEL}"] == {"pumps"}
    assert {"pumps", "ledger-writer-url"} <= found["ledger"]


def test_no_credential_is_an_environment_variable() -> None:
    objects = rendered({})
    assert list(secret_variables([*objects, *inference_services(objects, NAMESPACE)])) == []


def secret_variables(objects: list[Json]) -> Iterator[tuple[str, str]]:
    for each in objects:
        for container, _ in containers(each):
            for variable in container.get("env", []):
                if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                    yield container["name"], reference["key"]


def test_the_password_for_the_download_of_a_version_is_mounted_there_and_nowhere_else() -> None:
    objects = rendered({})
    for service in inference_services(objects, NAMESPACE):
        predictor = service["spec"]["predictor"]
        named = only(objects, "ClusterStorageContainer", predictor["storageContainerName"])
        downloads = named["spec"]["container"]
        (mount,) = (m for m in downloads["volumeMounts"] if m["mountPath"] == FILES)
        (volume,) = (v for v in predictor["volumes"] if v["name"] == mount["name"])
        assert volume["secret"]["items"] == [
            {"key": "mlflow-serving-password", "path": "mlflow-password"}
        ]
        others = [mounted for each, _ in containers(service) for mounted in each["volumeMounts"]]
        assert others
        assert volume["name"] not in {mounted["name"] for mounted in others}
        runtime = only(objects, "ServingRuntime", "watchkeeper")["spec"]
        names = [v["name"] for v in (*predictor["volumes"], *runtime["volumes"])]
        assert {m["name"] for m in downloads["volumeMounts"]} <= set(names)
        assert len(names) == len(set(names))


def test_a_login_that_is_required_later_finds_its_volume_in_the_versions_that_serve() -> None:
    objects = rendered({"mlflow": {"auth": {"enabled": False}}})
    for service in inference_services(objects, NAMESPACE):
        (volume,) = (
            v for v in service["spec"]["predictor"]["volumes"] if v["name"] == "registry-secrets"
        )
        assert volume["secret"]["optional"] is True


def test_versions_of_an_earlier_release_keep_the_container_that_they_name(namespace: str) -> None:
    """Their pods have no volume with the password, and no other pod gets it in its environment."""
    name = f"watchkeeper.{namespace}"
    values: Json = {"models": MODELS, "training": {"createNamespace": False}}

    def names() -> set[str]:
        found = [e for e in installed(values, namespace) if e["kind"] == "ClusterStorageContainer"]
        return {each["metadata"]["name"] for each in found}

    assert names() == {f"{name}.files"}
    (container,) = (
        e for e in installed(values, namespace) if e["kind"] == "ClusterStorageContainer"
    )
    labels = container["metadata"]["labels"]
    owner = {"release-name": "watchkeeper", "release-namespace": namespace}
    annotations = {f"meta.helm.sh/{key}": value for key, value in owner.items()}
    earlier = {
        **container,
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
    }
    kubectl("create", "--filename=-", given=json.dumps(earlier)).check_returncode()
    try:
        assert names() == {name, f"{name}.files"}
        kept = only(installed(values, namespace), "ClusterStorageContainer", name)
        assert list(secret_variables([kept])) == [
            ("storage-initializer", "mlflow-serving-password")
        ]
        assert {m["name"] for m in kept["spec"]["container"]["volumeMounts"]} == {"tmp"}
        assert kept["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    finally:
        remove("clusterstoragecontainer", name)


def test_every_user_of_the_embedded_database_has_a_password_of_its_own() -> None:
    found = {**secret_in(NAMESPACE), **secret_in(NAMESPACE, "watchkeeper-ledger-writers")}
    data = {key: b64decode(value).decode() for key, value in found.items()}
    urls = {key: make_url(url) for key, url in data.items() if "://" in url}
    users = {
        "ledger-url": ("watchkeeper", "ledger"),
        "ledger-reader-url": ("ledger-reader", "ledger"),
        MODEL: (f"ledger-writer-{MODEL}", "ledger"),
        OTHER: (f"ledger-writer-{OTHER}", "ledger"),
        "mlflow-url": ("mlflow", "mlflow"),
    }
    assert {key: (url.username, url.database) for key, url in urls.items()} == users
    assert len({url.password for url in urls.values()}) == len(urls)
    assert urls["ledger-url"].password == data["database-password"]


def test_the_training_namespace_gets_what_training_needs_and_no_more() -> None:
    data = secret_in(f"{NAMESPACE}-training")
    assert set(data) == {"ledger-reader-url", "mlflow-training-password"}


def test_without_an_mlflow_of_the_release_a_backup_has_only_the_ledger() -> None:
    other: Json = {"mlflow": {"enabled": False, "url": "http://mlflow.example.com:5000"}}
    for values, expected in (({}, "mlflow ledger"), (other, "ledger")):
        found = [
            variable["value"]
            for each in rendered(values)
            for container, _ in containers(each)
            for variable in container.get("env", [])
            if variable["name"] == "POSTGRESQL_DATABASES"
        ]
        assert found == [expected, expected]


def secret_in(namespace: str, name: str = "watchkeeper") -> dict[str, str]:
    """Return the data of a Secret that the chart creates in a namespace."""
    (secret,) = (
        each
        for each in rendered({})
        if (each["kind"], each["metadata"]["name"]) == ("Secret", name)
        and each["metadata"]["namespace"] == namespace
    )
    data: dict[str, str] = secret["data"]
    return data
