"""What is wrong with the Gateway is said at the install, and not when a model is trained."""

import json
import secrets
import shutil
from collections.abc import Callable, Iterator

import pytest
from cluster import kubectl, remove
from rendering import MODELS, Json, dry_install

NETWORKING = "gateway.networking.k8s.io/v1"

pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on PATH")
Create = Callable[..., str]


def refusal(namespace: str, gateway: Json, *words: str) -> str:
    """Return why `helm install` refuses the values; empty if it does not."""
    values = {"models": MODELS, "training": {"createNamespace": False}, "gateway": gateway}
    done = dry_install(values, namespace, *words)
    return done.stderr.partition("installation.yaml:1:4): ")[2].strip() if done.returncode else ""


@pytest.fixture
def create(namespace: str) -> Iterator[Create]:
    """Create an object that no controller looks at; it is removed after the test."""
    made: list[tuple[str, ...]] = []

    def create(kind: str, version: str, spec: Json, where: str = namespace) -> str:
        name = f"test-{secrets.token_hex(3)}"
        value = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}
        words = () if kind == "GatewayClass" else (f"--namespace={where}",)
        done = kubectl("create", *words, "--filename=-", given=json.dumps(value))
        assert done.returncode == 0, done.stderr
        made.append((f"{kind}/{name}", *words))
        return name

    yield create
    for words in reversed(made):
        remove(*words)


def gateway(create: Create, gateway_class: str, *, where: str, **listener: object) -> str:
    given = {"name": "web", "port": 80, "protocol": "HTTP", **listener}
    spec = {"gatewayClassName": gateway_class, "listeners": [given]}
    return create("Gateway", NETWORKING, spec, where)


def test_a_class_that_does_not_exist_is_refused(namespace: str) -> None:
    expected = "gateway.className: there is no GatewayClass nobody"
    assert refusal(namespace, {"className": "nobody"}) == expected


def test_a_port_that_another_gateway_holds_on_a_shared_envoy_is_refused(
    namespace: str, create: Create
) -> None:
    controller = {"controllerName": "example.com/nobody"}
    merged = create("EnvoyProxy", "gateway.envoyproxy.io/v1alpha1", {"mergeGateways": True})
    proxy = {"group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "name": merged}
    shared = create(
        "GatewayClass",
        NETWORKING,
        {**controller, "parametersRef": {**proxy, "namespace": namespace}},
    )
    alone = create("GatewayClass", NETWORKING, controller)
    values = {"className": shared, "port": 8000}
    assert refusal(namespace, values) == ""
    other = gateway(create, shared, where=f"{namespace}-training", port=8000)
    text = refusal(namespace, values)
    assert text.startswith(f"gateway.port: the Gateway {namespace}-training/{other} has a listener")
    assert "choose another port, or use that Gateway (gateway.existing)" in text
    assert refusal(namespace, {**values, "port": 8001}) == ""
    assert refusal(namespace, {**values, "className": alone}) == "", "it has an Envoy of its own"
    gateway(create, shared, where=namespace, port=8002, hostname="plant.example.com")
    assert refusal(namespace, {**values, "port": 8002}) == "", "ours has no host name"


def test_an_existing_gateway_must_take_the_routes(namespace: str, create: Create) -> None:
    elsewhere = f"{namespace}-training"
    controller = create("GatewayClass", NETWORKING, {"controllerName": "example.com/nobody"})

    def refused(name: str, where: str = namespace, listener: str = "") -> str:
        existing = {"name": name, "namespace": where, "sectionName": listener}
        found = refusal(namespace, {"create": False, "existing": existing})
        return found.removeprefix(f"gateway.existing: Gateway {where}/{name}")

    assert refused("missing") == " does not exist"
    own = gateway(create, controller, where=namespace)
    assert refused(own) == refused(own, listener="web") == ""
    assert refused(own, listener="grpc") == " has no listener grpc; it has web"
    closed = gateway(create, controller, where=elsewhere)
    assert refused(closed, elsewhere).startswith(" allows routes of its own namespace only")
    routes = {"namespaces": {"from": "All"}}
    assert (
        refused(gateway(create, controller, where=elsewhere, allowedRoutes=routes), elsewhere) == ""
    )
    conflict = {
        "type": "Conflicted",
        "status": "True",
        "reason": "HostnameConflict",
        "message": "must be unique",
        "lastTransitionTime": "2026-11-21T00:00:00Z",
    }
    listener = {"name": "web", "attachedRoutes": 0, "supportedKinds": [], "conditions": [conflict]}
    change = json.dumps({"status": {"listeners": [listener]}})
    words = (
        "--subresource=status",
        "--type=merge",
        f"--namespace={namespace}",
        f"--patch={change}",
    )
    kubectl("patch", "gateway", own, *words).check_returncode()
    assert refused(own) == ", listener web: HostnameConflict: must be unique"
