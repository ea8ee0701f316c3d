"""Every connection of the scenarios so far is one that the chart's NetworkPolicies allow.

The cluster of the scenarios enforces no NetworkPolicies. So the kernel records all connections, and
tests/e2e/support/network_policies.py evaluates the policies.
"""

import secrets

import pytest
from connection_recorder import ConnectionRecorder
from declared_models import MODELS
from installation import RELEASE, Installation
from kube import Json, helm, items, kubectl, wait_until
from load import Load
from network_policies import Endpoint, NetworkPolicies
from rollouts import current_scenario, has_succeeded

COMPONENT = "app.kubernetes.io/component"
REQUESTS = 50
# Connections that must be in the record: source, target, port.
EXPECTED = {
    ("proxy", "server", 8080),
    ("proxy", "server", 9000),
    ("server", "mlflow", 5000),
    ("server", "postgresql", 5432),
    ("rollout", "mlflow", 5000),
    ("rollout", "postgresql", 5432),
    ("cli", "postgresql", 5432),
    ("hook", "postgresql", 5432),
    ("test", "mlflow", 5000),
    ("training", "mlflow", 5000),
    ("training", "postgresql", 5432),
    ("mlflow", "postgresql", 5432),
    ("backup", "postgresql", 5432),
}


@pytest.fixture(scope="module")
def connected(installation: Installation, recorder: ConnectionRecorder | None) -> None:
    """Make every expected connection at least once, also if no other scenario has run."""
    if recorder is None:
        pytest.skip("connections can be recorded on the node of `make cluster` only")
    installation.install()
    run = installation.watchkeeper("train", MODELS[0])["run"]
    wait_until("the run has succeeded", lambda: has_succeeded(installation, run), 300.0)
    for model in MODELS:
        scenario = current_scenario(installation, model)
        with Load(installation, model, f"connections-{model}", scenario=scenario) as load:
            wait_until("answers", lambda load=load: load.answered() >= REQUESTS)
    namespace = f"--namespace={installation.namespace}"
    helm("test", RELEASE, namespace, "--timeout=3m")
    job = f"connections-{secrets.token_hex(3)}"
    kubectl("create", "job", job, f"--from=cronjob/{RELEASE}-backup", namespace)
    words = (f"job/{job}", "--for=condition=Complete", "--timeout=110s", namespace)
    kubectl("wait", *words, seconds=120.0)


@pytest.mark.usefixtures("connected")
def test_all_connections_are_allowed(
    installation: Installation, recorder: ConnectionRecorder
) -> None:
    recorder.check()
    policies = NetworkPolicies(
        items("networkpolicies", "--all-namespaces"),
        {each["metadata"]["name"]: each["metadata"]["labels"] for each in items("namespaces")},
    )
    namespaces = {installation.namespace, installation.training}
    services = items("services", "--all-namespaces")
    ports_of_tests = outside_ports(services)
    # A connection to a Service that had no pod went nowhere.
    addresses_of_services = {service["spec"]["clusterIP"] for service in services}
    found = [
        connection
        for connection in recorder.connections()
        if {connection.source.namespace, connection.target.namespace} & namespaces
        and connection.source.address not in recorder.node
        and connection.target.address not in addresses_of_services
        and (connection.source.pod or connection.requested_port not in ports_of_tests)
    ]
    denied = {
        policies.denial(connection.source, connection.target, connection.port, connection.protocol)
        for connection in found
    }
    assert sorted(denied - {""}) == []
    seen = {
        (component(connection.source), component(connection.target), connection.port)
        for connection in found
    }
    port = int(installation.endpoints().address.rpartition(":")[2])
    assert seen >= EXPECTED | {("test", "proxy", port)}


def outside_ports(services: list[Json]) -> set[int]:
    """Return the ports of the node by which the tests themselves connect to databases."""
    return {
        port["nodePort"]
        for service in services
        if service["metadata"]["name"].endswith("-outside")
        for port in service["spec"]["ports"]
    }


def component(endpoint: Endpoint) -> str:
    return endpoint.labels.get(COMPONENT, "")
