"""Every client checks the certificates of MLflow, the database and the servers, if they exist."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cluster import KUBECONFIG, check_accepted, definitions, kubectl, remove
from rendering import (
    CHART,
    MODELS,
    Json,
    containers,
    inference_services,
    only,
    policies,
    rendered,
)

ISSUED: Json = {"tls": {"issuer": {"name": "ours"}}}
GIVEN: Json = {"tls": {"secrets": {"mlflow": "one", "database": "two"}}}
OUTSIDE: Json = {
    "postgresql": {"enabled": False},
    "mlflow": {"enabled": False, "url": "https://mlflow.example.com"},
    "secrets": {"existing": "credentials", "existingTraining": "credentials"},
}
# The variable of a client for each variable that names a server.
CLIENTS = {
    "MLFLOW_TRACKING_URI": "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "WATCHKEEPER_LEDGER_URL_FILE": "WATCHKEEPER_LEDGER_CA",
    "MLFLOW_BACKEND_STORE_URI_FILE": "PGSSLROOTCERT",
    "PGHOST": "PGSSLROOTCERT",
}

pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on PATH")


def clients(objects: list[Json]) -> Iterator[tuple[str, str, str, str | None]]:
    """Yield namespace, container, variable of the server, and Secret of the authority."""
    runtime = only(objects, "ServingRuntime", "watchkeeper")
    for each in objects + inference_services(objects, "plant"):
        for container, volumes in containers(each):
            variables = {one["name"]: one.get("value", "") for one in container.get("env", [])}
            # KServe adds the volumes of the runtime.
            known = volumes or runtime["spec"]["volumes"]
            for server, variable in CLIENTS.items():
                if server in variables:
                    path = variables.get(variable)
                    found = path and authority(container, known, Path(path))
                    yield each["metadata"].get("namespace", ""), container["name"], server, found


def authority(container: Json, volumes: list[Json], path: Path) -> str:
    """Return the Secret whose ca.crt is the file with a path in a container."""
    (mount,) = (m["name"] for m in container["volumeMounts"] if m["mountPath"] == str(path.parent))
    (volume,) = (each for each in volumes if each["name"] == mount)
    sources = [one["secret"] for one in volume.get("projected", {}).get("sources", [])]
    sources = sources or [{**volume["secret"], "name": volume["secret"]["secretName"]}]
    (found,) = (s["name"] for s in sources if {"key": "ca.crt", "path": path.name} in s["items"])
    return str(found)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (ISSUED, {"watchkeeper-mlflow-tls", "watchkeeper-postgresql-tls"}),
        (GIVEN, {"one", "two"}),
        ({**OUTSIDE, **GIVEN}, {"one", "two"}),
    ],
)
def test_every_client_knows_the_authorities(values: Json, expected: set[str]) -> None:
    found = [each for each in clients(rendered(values)) if each[0] != "plant-training"]
    names = {name for _, name, _, _ in found}
    assert {"rollout", "cli", "ledger", "drift", "storage-initializer", "test"} <= names
    for _, name, server, secret in found:
        of_mlflow = server == "MLFLOW_TRACKING_URI"
        assert secret == (min(expected) if of_mlflow else max(expected)), (name, server)


@pytest.mark.parametrize(
    ("values", "expected"), [(ISSUED, {"watchkeeper-training-tls"}), (GIVEN, {"one", "two"})]
)
def test_training_finds_the_authorities_in_its_own_namespace(
    values: Json, expected: set[str]
) -> None:
    objects = rendered(values)
    found = {secret for namespace, *_, secret in clients(objects) if namespace == "plant-training"}
    assert found == expected
    written = {
        (each["metadata"]["namespace"], each["spec"]["secretName"])
        for each in objects
        if each["kind"] == "Certificate"
    }
    assert ("plant-training", "watchkeeper-training-tls") in written or values is not ISSUED


@pytest.mark.parametrize("values", [{}, OUTSIDE])
def test_without_tls_nobody_checks_anything(values: Json) -> None:
    objects = rendered(values)
    assert {secret for *_, secret in clients(objects)} == {None}
    assert not any(each["kind"] == "Certificate" for each in objects)


@pytest.mark.parametrize("server", ["mlflow", "postgresql"])
def test_a_server_has_its_own_certificate_for_the_name_that_clients_call(server: str) -> None:
    objects = rendered(ISSUED)
    name = f"watchkeeper-{server}-tls"
    issued = only(objects, "Certificate", name)["spec"]
    assert f"watchkeeper-{server}.plant.svc" in issued["dnsNames"]
    assert issued["issuerRef"] == {
        "name": "ours",
        "kind": "ClusterIssuer",
        "group": "cert-manager.io",
    }
    kind = "Deployment" if server == "mlflow" else "StatefulSet"
    volumes = only(objects, kind, f"watchkeeper-{server}")["spec"]["template"]["spec"]["volumes"]
    mounted = [each["secret"] for each in volumes if each["name"] == "certificate"]
    assert [(each["secretName"], each["defaultMode"]) for each in mounted] == [(name, 0o440)]


def test_the_servers_can_be_left_without_a_certificate() -> None:
    objects = rendered({"tls": {**ISSUED["tls"], "servers": False}})
    names = {each["metadata"]["name"] for each in objects if each["kind"] == "Certificate"}
    assert names == {f"watchkeeper-{part}-tls" for part in ("mlflow", "postgresql", "training")}
    for service in inference_services(objects, "plant"):
        variables = {each["name"] for each in service["spec"]["predictor"]["model"]["env"]}
        assert "WATCHKEEPER_CERTIFICATE" not in variables


@pytest.mark.parametrize(
    ("values", "secret"),
    [
        (ISSUED, "watchkeeper-servers-tls"),
        ({"tls": {"secrets": {"servers": "three"}}}, "three"),
    ],
)
def test_the_gateway_checks_the_certificate_that_the_servers_have(
    values: Json, secret: str
) -> None:
    objects = rendered(values)
    host = "watchkeeper-servers.plant.svc"
    if values is ISSUED:
        assert only(objects, "Certificate", secret)["spec"]["dnsNames"] == [host]
    for service in inference_services(objects, "plant"):
        predictor = service["spec"]["predictor"]
        variables = {each["name"]: each["value"] for each in predictor["model"]["env"]}
        mounts = {m["mountPath"]: m["name"] for m in predictor["model"]["volumeMounts"]}
        volumes = {each["name"]: each for each in predictor["volumes"]}
        folder = variables["WATCHKEEPER_CERTIFICATE"]
        assert volumes[mounts[folder]]["secret"]["secretName"] == secret
        plain = only(objects, "ServingRuntime", "watchkeeper")["spec"]["containers"][0]["ports"]
        ports = predictor["model"]["ports"]
        assert ports[:-2] == plain, "KServe puts others before those of the runtime"
        assert [each["containerPort"] for each in ports[-2:]] == [8443, 9443]
    for model in MODELS:
        validation = only(policies(objects, "plant"), "BackendTLSPolicy", model)["spec"][
            "validation"
        ]
        assert validation["hostname"] == host
        assert [each["name"] for each in validation["caCertificateRefs"]] == [secret]
    (container,) = only(objects, "Pod", "watchkeeper-test")["spec"]["containers"]
    volumes = only(objects, "Pod", "watchkeeper-test")["spec"]["volumes"]
    assert authority(container, volumes, Path("/run/authorities/servers.crt")) == secret


def test_training_in_the_namespace_of_the_release_needs_no_certificate() -> None:
    objects = rendered({**ISSUED, "training": {"namespace": "plant"}})
    assert sum(each["kind"] == "Certificate" for each in objects) == 3
    assert "watchkeeper-training-tls" not in {secret for *_, secret in clients(objects)}


@pytest.fixture(scope="module")
def cert_manager() -> Iterator[None]:
    """The CRD of cert-manager's certificates on the cluster."""
    module = "github.com/cert-manager/cert-manager@v1.21.2"
    with definitions(module, "deploy/crds/cert-manager.io", ("certificates",)):
        yield


@pytest.mark.usefixtures("namespace", "cert_manager")
def test_the_api_server_accepts_certificates(namespace: str) -> None:
    objects = rendered({"tls": {"issuer": {"name": "ours"}}}, namespace=namespace)
    assert sum(each["kind"] == "Certificate" for each in objects) == 4
    check_accepted(objects + inference_services(objects, namespace))


def migration(values: Json, namespace: str) -> str | None:
    """Return the authority of the migrations of an upgrade that reads from the cluster."""
    done = subprocess.run(
        [
            *("helm", "template", "watchkeeper", str(CHART), f"--namespace={namespace}"),
            *("--values=-", "--is-upgrade", "--dry-run=server"),
        ],
        input=json.dumps({"models": MODELS, **values}),
        env={**os.environ, "KUBECONFIG": KUBECONFIG},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    objects = [each for each in yaml.load_all(done.stdout, yaml.CSafeLoader) if each]
    found = {
        (authority(container, volumes, Path(variable["value"])))
        for container, volumes in containers(only(objects, "Job", "watchkeeper-migrations"))
        for variable in container["env"]
        if variable["name"] in CLIENTS.values()
    }
    assert len(found) <= 1
    return min(found, default=None)


@pytest.mark.usefixtures("namespace", "cert_manager")
@pytest.mark.parametrize(("running", "expected"), [({}, None), (GIVEN, "two")])
def test_the_migrations_of_an_upgrade_check_the_certificate_that_the_database_still_has(
    namespace: str, running: Json, expected: str | None
) -> None:
    """They run before the upgrade changes the database."""
    database = only(rendered(running, namespace=namespace), "StatefulSet", "watchkeeper-postgresql")
    database["spec"]["replicas"] = 0
    kubectl("apply", "--server-side", "--filename=-", given=json.dumps(database)).check_returncode()
    try:
        assert [migration(values, namespace) for values in ({}, GIVEN, ISSUED)] == [expected] * 3
    finally:
        remove("statefulset", "watchkeeper-postgresql", f"--namespace={namespace}")
    assert migration(GIVEN, namespace) == "two"
