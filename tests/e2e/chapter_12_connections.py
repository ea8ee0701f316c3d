"""Every connection of the whole story is one that the chart's NetworkPolicies allow."""

import pytest
from installation import Installation
from kube import Json, items
from policies import Place, Rules
from recorder import Recorder

COMPONENT = "app.kubernetes.io/component"
# What must have been seen, or nothing was recorded: who, to whom, and by which port.
SEEN = {
    ("proxy", "server", 8080),
    ("proxy", "server", 9000),
    ("server", "mlflow", 5000),
    ("server", "postgresql", 5432),
    ("rollout", "mlflow", 5000),
    ("rollout", "postgresql", 5432),
    ("cli", "postgresql", 5432),
    ("hook", "postgresql", 5432),
    ("test", "mlflow", 5000),
    ("test", "server", 8080),
    ("test", "server", 9000),
    ("training", "mlflow", 5000),
    ("training", "postgresql", 5432),
    ("mlflow", "postgresql", 5432),
}


def test_all_connections_are_allowed(installation: Installation, recorder: Recorder | None) -> None:
    if recorder is None:
        pytest.skip("connections can be recorded on the node of `make cluster` only")
    recorder.check()
    rules = Rules(
        items("networkpolicies", "--all-namespaces"),
        {one["metadata"]["name"]: one["metadata"]["labels"] for one in items("namespaces")},
    )
    spaces = {installation.namespace, installation.training}
    services = items("services", "--all-namespaces")
    by_the_tests = ports_of_the_tests(services)
    # of a Service that had no pod at that time: it went nowhere
    nobody = {service["spec"]["clusterIP"] for service in services}
    found = [
        connection
        for connection in recorder.connections()
        if {connection.source.namespace, connection.target.namespace} & spaces
        and connection.source.address not in recorder.node
        and connection.target.address not in nobody
        and (connection.source.pod or connection.asked not in by_the_tests)
    ]
    refused = {
        rules.refusal(connection.source, connection.target, connection.port, connection.protocol)
        for connection in found
    }
    assert sorted(refused - {""}) == []
    seen = {
        (component(connection.source), component(connection.target), connection.port)
        for connection in found
    }
    assert seen >= SEEN


def ports_of_the_tests(services: list[Json]) -> set[int]:
    """Return the node's ports by which these tests call databases from outside."""
    return {
        port["nodePort"]
        for service in services
        if service["metadata"]["name"].endswith("-outside")
        for port in service["spec"]["ports"]
    }


def component(place: Place) -> str:
    return place.labels.get(COMPONENT, "")
