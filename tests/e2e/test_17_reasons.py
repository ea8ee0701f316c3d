"""What is wrong is said where people look: at the install, in the status, and in Events."""

import time
from datetime import datetime

import pytest
from declared_models import FIRST as MODEL
from declared_models import MODELS
from faults import delete_pod
from installation import Installation
from kube import CommandError, apply, get, items, kubectl, secret, wait_until

SOURCE = {"source": {"secretName": "plant", "key": "url"}}
RETRIES = "backendtrafficpolicies.gateway.envoyproxy.io"
PRODUCTION = "jsonpath={.metadata.annotations.watchkeeper/production}"


def test_kubectl_waits_for_the_version_in_production(installation: Installation) -> None:
    version = installation.model(MODEL)["production"]
    words = ("wait", f"httproute/{MODEL}", f"--namespace={installation.namespace}")
    assert "condition met" in kubectl(*words, f"--for={PRODUCTION}={version}", "--timeout=20s")
    with pytest.raises(CommandError, match="timed out"):
        kubectl(*words, f"--for={PRODUCTION}={version + 1}", "--timeout=2s")


def test_no_container_of_a_server_has_a_secret_in_its_environment(
    installation: Installation,
) -> None:
    pods = items("pods", f"--namespace={installation.namespace}")
    assert pods
    for pod in pods:
        spec = pod["spec"]
        for container in (*spec.get("initContainers", []), *spec["containers"]):
            sources = [each.get("valueFrom", {}) for each in container.get("env", [])]
            assert not any("secretKeyRef" in source for source in sources), container["name"]


def test_an_upgrade_with_a_model_that_the_training_image_does_not_declare_is_refused(
    installation: Installation,
) -> None:
    models = {**installation.values()["models"], "paint-quality": SOURCE}
    with pytest.raises(CommandError) as refused:
        installation.install(models=models)
    assert "no model 'paint-quality' is declared; declared models: " in str(refused.value)
    assert all(model in str(refused.value) for model in MODELS)
    assert "paint-quality" not in installation.watchkeeper("status")["endpoints"]["hosts"]


def test_an_upgrade_with_a_secret_that_lacks_keys_is_refused(installation: Installation) -> None:
    apply(secret(installation.namespace, "own", {"signing-key": "x", "ledger-url": "sqlite://"}))
    with pytest.raises(CommandError) as refused:
        installation.install(secrets={"existing": "own", "existingTraining": "own"})
    expected = "the Secret own does not exist, or lacks keys: database-password, feedback-token, "
    assert expected in str(refused.value)
    kubectl("delete", "secret/own", f"--namespace={installation.namespace}")
    installation.install()


def test_a_policy_that_takes_the_place_of_ours_is_in_the_status_and_an_event(
    installation: Installation,
) -> None:
    namespace = f"--namespace={installation.namespace}"
    own = get(RETRIES, MODEL, namespace)
    metadata = {"name": "somebody-else", "namespace": installation.namespace}
    spec = {"targetRefs": own["spec"]["targetRefs"], "retry": {"numRetries": 1}}
    apply({**{key: own[key] for key in ("apiVersion", "kind")}, "metadata": metadata, "spec": spec})
    # Of two policies the older one is in force, and rollout creates ours again. Times are in whole
    # seconds.
    theirs = get(RETRIES, "somebody-else", namespace)["metadata"]["creationTimestamp"]
    created = datetime.fromisoformat(theirs).timestamp()
    wait_until("the next second", lambda: time.time() >= created + 1.0)
    kubectl("delete", RETRIES, MODEL, namespace)
    expected = f"the gateway does not apply BackendTrafficPolicy {MODEL}: Conflicted"
    wait_until("status", lambda: expected in installation.model(MODEL)["problem"])
    wait_until("an Event", lambda: events_about_route(installation, expected))
    kubectl("delete", RETRIES, "somebody-else", namespace)
    wait_until("no problem is left", lambda: not installation.model(MODEL)["problem"])


def events_about_route(installation: Installation, text: str) -> list[str]:
    words = ("--field-selector=reason=GatewayProblem", f"--namespace={installation.namespace}")
    return [
        event["message"]
        for event in items("events", *words)
        if event["involvedObject"]["kind"] == "HTTPRoute" and text in event["message"]
    ]


def test_the_lease_of_a_pod_that_was_killed_goes_with_it(installation: Installation) -> None:
    namespace = f"--namespace={installation.namespace}"
    version = installation.model(MODEL)["production"]
    name = f"watch-{MODEL}-v{version}"
    (owner,) = get("lease", name, namespace)["metadata"]["ownerReferences"]
    delete_pod(installation.namespace, owner["name"], "--force", "--grace-period=0")

    def is_gone() -> bool:
        """Return whether the lease is gone, or another pod holds it."""
        owners = get("lease", name, namespace).get("metadata", {}).get("ownerReferences", [])
        return owner["uid"] not in [each["uid"] for each in owners]

    wait_until("the lease is not that of the pod", is_gone, 60.0)

    def is_held() -> bool:
        holder = get("lease", name, namespace).get("spec", {}).get("holderIdentity", "")
        pods = {pod["metadata"]["name"] for pod in items("pods", namespace)}
        return any(holder.startswith(pod[:63]) for pod in pods) and bool(holder)

    wait_until("another sidecar watches", is_held, 120.0)
