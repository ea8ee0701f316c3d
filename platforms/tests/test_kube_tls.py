"""The gateway calls a version with TLS exactly if its servers were created with a certificate."""

from collections.abc import Iterator
from typing import Any

import pytest
from api_server import ApiServer
from kube_system import MODEL, KubeSystem, installed

from watchkeeper.platforms import Route
from watchkeeper.platforms.kube import KubePlatform, api

Json = dict[str, Any]
PORTS = [{"name": "https", "containerPort": 8443}, {"name": "grpc-h2c-tls", "containerPort": 9443}]
VALIDATION = {
    "hostname": "watchkeeper-servers.plant.svc",
    "caCertificateRefs": [{"group": "", "kind": "Secret", "name": "servers"}],
}
POLICY = {
    "kind": "BackendTLSPolicy",
    "metadata": {"name": MODEL},
    "spec": {"validation": VALIDATION},
}


def turn_on(installation: Json) -> None:
    model = installation["models"][MODEL]
    model["inferenceService"]["spec"]["predictor"]["model"]["ports"] = PORTS
    model["policies"].append(POLICY)


def turn_off(installation: Json) -> None:
    model = installation["models"][MODEL]
    del model["inferenceService"]["spec"]["predictor"]["model"]["ports"]
    model["policies"].remove(POLICY)


@pytest.fixture
def system(api_server: ApiServer) -> Iterator[KubeSystem]:
    with installed(api_server) as system:
        yield system


@pytest.fixture
def rollout(system: KubeSystem) -> KubePlatform:
    """The platform with the permissions of the rollout controller."""
    return system.open("rollout")


def ports(system: KubeSystem) -> dict[str, set[tuple[int, int]]]:
    """Return version and port of all backends, for each rule of the route."""
    rules = system.here.get(api.HTTP_ROUTE, MODEL)["spec"]["rules"]
    return {
        rule["name"]: {
            (int(backend["name"].removesuffix("-predictor").rpartition("-v")[2]), backend["port"])
            for backend in rule["backendRefs"]
        }
        for rule in rules
    }


def targets(system: KubeSystem) -> list[str]:
    """Return the Services that the gateway calls with TLS."""
    return [
        target["name"]
        for policy in system.here.list(api.BACKEND_TLS_POLICY)
        for target in policy["spec"]["targetRefs"]
    ]


def test_versions_with_and_without_a_certificate_serve_side_by_side(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    rollout.serve(MODEL, 1)
    rollout.reconcile(MODEL)
    rollout.set_route(MODEL, Route({1: 100}))
    assert targets(system) == []
    system.as_helm_upgrade(turn_on)
    rollout.reconcile(MODEL)
    assert targets(system) == [], "a policy for the old version would end its traffic"
    rollout.serve(MODEL, 2)
    rollout.reconcile(MODEL)
    assert targets(system) == [f"{MODEL}-v2-predictor"]
    rollout.set_route(MODEL, Route({1: 90, 2: 10}))
    assert ports(system) == {
        "open-grpc": {(1, 9000), (2, 9443)},
        "open-http": {(1, 80), (2, 8443)},
        "grpc": {(1, 9000), (2, 9443)},
        "http": {(1, 80), (2, 8443)},
    }
    assert rollout.route(MODEL) == Route({1: 90, 2: 10})
    system.as_gateway(MODEL)
    assert rollout.confirmed(MODEL)


def test_the_policy_of_the_first_version_exists_before_its_route(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    system.as_helm_upgrade(turn_on)
    rollout.serve(MODEL, 1)
    rollout.set_route(MODEL, Route({1: 100}))
    (policy,) = system.here.list(api.BACKEND_TLS_POLICY)
    assert policy["spec"]["validation"] == VALIDATION
    assert targets(system) == [f"{MODEL}-v1-predictor"]


def test_a_policy_that_was_changed_or_deleted_by_hand_is_restored(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    system.as_helm_upgrade(turn_on)
    rollout.serve(MODEL, 1)
    rollout.reconcile(MODEL)
    (wanted,) = system.here.list(api.BACKEND_TLS_POLICY)
    before = system.snapshot()
    rollout.reconcile(MODEL)
    assert system.snapshot() == before, "nothing is written again"
    changed = {"validation": {"hostname": "example.com"}}
    system.here.patch(api.BACKEND_TLS_POLICY, MODEL, {"spec": changed})
    rollout.reconcile(MODEL)
    (found,) = system.here.list(api.BACKEND_TLS_POLICY)
    assert found["spec"] == wanted["spec"]
    system.here.delete(api.BACKEND_TLS_POLICY, MODEL)
    rollout.reconcile(MODEL)
    (found,) = system.here.list(api.BACKEND_TLS_POLICY)
    assert found["spec"] == wanted["spec"]


def test_a_route_whose_port_was_changed_by_hand_is_not_confirmed(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    system.as_helm_upgrade(turn_on)
    rollout.serve(MODEL, 1)
    rollout.set_route(MODEL, Route({1: 100}))
    rules = system.here.get(api.HTTP_ROUTE, MODEL)["spec"]["rules"]
    for rule in rules:
        rule["backendRefs"][0]["port"] = 80
    system.here.patch(api.HTTP_ROUTE, MODEL, {"spec": {"rules": rules}})
    system.as_gateway(MODEL)
    assert not rollout.confirmed(MODEL)
    rollout.set_route(MODEL, Route({1: 100}))
    system.as_gateway(MODEL)
    assert rollout.confirmed(MODEL)


def test_the_policy_stays_until_the_last_version_with_a_certificate_is_gone(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    system.as_helm_upgrade(turn_on)
    rollout.serve(MODEL, 1)
    rollout.set_route(MODEL, Route({1: 100}))
    system.as_helm_upgrade(turn_off)
    rollout.serve(MODEL, 2)
    rollout.set_route(MODEL, Route({1: 50, 2: 50}))
    system.as_gateway(MODEL)
    rollout.reconcile(MODEL)
    assert targets(system) == [f"{MODEL}-v1-predictor"]
    assert ports(system)["http"] == {(1, 8443), (2, 80)}
    rollout.set_route(MODEL, Route({2: 100}))
    system.as_gateway(MODEL)
    rollout.retire(MODEL, 1)
    system.settle(MODEL)
    rollout.reconcile(MODEL)
    assert system.here.list(api.BACKEND_TLS_POLICY) == []
