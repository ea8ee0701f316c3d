"""Nobody is answered without a credential, whatever happens to the release.

Strangers ask all models over both protocols during every operation. A request without an answer is
no proof, so the known client must be answered at the points where the model serves.
"""

import json
import secrets
from collections.abc import Iterator

import pytest
from declared_models import FIRST, MODELS, SECOND
from installation import RELEASE, Installation
from kube import (
    Json,
    apply,
    get,
    helm,
    items,
    kubectl,
    read_secret,
    secret,
    wait_until,
)
from rollouts import serves_alone
from sample_requests import sample_request
from single_requests import is_answered, is_rejected
from stranger import Stranger

from watchkeeper.core.events import ModelRemoved
from watchkeeper.ledger.events import history

KEY = secrets.token_hex(16)
HEADERS = {"x-api-key": KEY}
AUTH = {"clients": {"mode": "apiKey", "apiKey": {"secretNames": ["clients"]}}}
OF_ROLLOUT = "httproutes,inferenceservices,backendtrafficpolicies,securitypolicies,networkpolicies"
# A program for the pod of the command line: sends a request, prints status and body.
SEND = """
import json, sys, urllib.error, urllib.request
given = json.load(sys.stdin)
data, headers = json.dumps(given["body"]).encode(), given["headers"]
try:
    answer = urllib.request.urlopen(urllib.request.Request(given["url"], data, headers), timeout=10)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.read().decode())
"""
ASKED = 40  # requests of strangers after each operation


@pytest.fixture(scope="module", autouse=True)
def authentication(installation: Installation) -> Iterator[None]:
    """Authenticate the clients of all models by API keys."""
    apply(secret(installation.namespace, "clients", {"press-shop": KEY}))
    installation.install(auth=AUTH)
    for model in MODELS:
        wait_until("no credential is rejected", lambda m=model: rejects_strangers(installation, m))
        wait_until("a known client is answered", lambda m=model: answers(installation, m))
    yield
    installation.install()
    wait_until("everybody is answered", lambda: not rejects_strangers(installation, FIRST))
    namespace = f"--namespace={installation.namespace}"
    kubectl("delete", "secret/clients", "--ignore-not-found", namespace)


@pytest.fixture
def stranger(installation: Installation) -> Iterator[Stranger]:
    """Strangers who ask during a test."""
    with Stranger(installation) as stranger:
        yield stranger
    asked = {(model, protocol) for model, protocol, _ in stranger.results}
    assert asked == {(model, protocol) for model in MODELS for protocol in ("http", "grpc")}
    assert stranger.answers == []


def test_a_removed_model_is_drained_and_retired(
    installation: Installation, stranger: Stranger
) -> None:
    models = {FIRST: installation.values()["models"][FIRST]}
    installation.install(auth=AUTH, models=models)
    wait_until(
        "nothing of the model is left",
        lambda: (
            not of_rollout(installation, SECOND)
            and not installation.watchkeeper("status")["removed"]
        ),
        seconds=180.0,
    )
    (removed,) = history(installation.ledger, SECOND, kind=ModelRemoved)
    assert removed.details.versions  # type: ignore[union-attr]
    assert answers(installation, FIRST)
    check(stranger)


def test_a_model_that_is_added_again_serves_again(
    installation: Installation, stranger: Stranger
) -> None:
    installation.install(auth=AUTH)
    wait_until("a known client is answered", lambda: answers(installation, SECOND), seconds=180.0)
    check(stranger)


def test_a_server_answers_nobody_past_the_gateway(installation: Installation) -> None:
    version = installation.model(FIRST)["production"]
    forged = {"x-watchkeeper-client": "press-shop"}
    for pod in installation.pods(FIRST, version):
        for headers in ({}, forged, {**forged, **HEADERS}):
            status, text = past_the_gateway(installation, pod, headers)
            assert status == 401
            assert "answers its gateway only" in text


def test_a_client_cannot_replace_the_token_of_the_gateway(installation: Installation) -> None:
    for protocol in ("http", "grpc"):
        headers = {**HEADERS, "x-watchkeeper-gateway": "forged"}
        assert is_answered(installation, protocol, headers, FIRST)


def test_the_token_of_the_gateway_is_replaced_without_a_refused_request(
    installation: Installation,
) -> None:
    namespace, name = f"--namespace={installation.namespace}", f"{RELEASE}-gateway"
    new = secrets.token_hex(16)
    version = installation.model(FIRST)["production"]

    def know(token: str) -> bool:
        """Return True if every server accepts a token."""
        headers = {"x-watchkeeper-gateway": token}
        pods = installation.pods(FIRST, version)
        return all(past_the_gateway(installation, pod, headers)[0] == 200 for pod in pods)

    old = read_secret(installation.namespace, name, "credential")
    patch = json.dumps({"stringData": {"next": new}})
    kubectl("patch", "secret", name, f"--patch={patch}", namespace)
    wait_until("all servers know the new token", lambda: know(new), seconds=180.0)
    assert know(old)
    patch = json.dumps({"stringData": {"credential": new, "previous": old}})
    kubectl("patch", "secret", name, f"--patch={patch}", namespace)
    for _ in range(20):
        assert answers(installation, FIRST)
    remove = json.dumps([{"op": "remove", "path": f"/data/{key}"} for key in ("next", "previous")])
    kubectl("patch", "secret", name, "--type=json", f"--patch={remove}", namespace)
    while know(old):
        assert answers(installation, FIRST)
    assert answers(installation, FIRST)


def test_policies_that_somebody_deletes_come_back(installation: Installation) -> None:
    namespace = f"--namespace={installation.namespace}"
    before = of_rollout(installation, FIRST)
    selector = f"--selector=watchkeeper/model={FIRST}"
    kubectl("delete", "securitypolicies,networkpolicies", selector, namespace)
    wait_until("they are back", lambda: of_rollout(installation, FIRST) == before)
    wait_until("no credential is rejected", lambda: rejects_strangers(installation, FIRST))


def test_serving_and_its_protection_outlive_the_release(
    installation: Installation, stranger: Stranger
) -> None:
    namespace = f"--namespace={installation.namespace}"
    before = {model: of_rollout(installation, model) for model in MODELS}
    helm("uninstall", RELEASE, namespace, "--wait", "--timeout=3m", seconds=200.0)
    for model in MODELS:
        assert of_rollout(installation, model) == before[model]
        assert answers(installation, model)
    assert get("gateway", RELEASE, namespace)
    check(stranger)


def test_a_new_install_takes_over_what_serves(
    installation: Installation, stranger: Stranger
) -> None:
    installation.install(auth=AUTH)
    for model in MODELS:
        production = installation.model(model)["production"]
        wait_until(
            f"{model} serves alone", lambda m=model, v=production: serves_alone(installation, m, v)
        )
        assert answers(installation, model)
    check(stranger)


def past_the_gateway(
    installation: Installation, pod: Json, headers: dict[str, str]
) -> tuple[int, str]:
    """Send a request from the pod of the command line to a server; return status and body."""
    url = f"http://{pod['status']['podIP']}:8080/v2/models/{FIRST}/infer"
    given = json.dumps({"url": url, "headers": headers, "body": sample_request(FIRST)})
    words = ("exec", "-i", f"deploy/{RELEASE}-cli", f"--namespace={installation.namespace}", "--")
    status, _, text = kubectl(*words, "python", "-c", SEND, given=given).partition(" ")
    return int(status), text


def check(stranger: Stranger) -> None:
    """Wait for further requests of the strangers, and check that none was answered."""
    asked = stranger.asked()
    wait_until("strangers have asked again", lambda: stranger.asked() >= asked + ASKED)
    assert stranger.answers == []


def answers(installation: Installation, model: str) -> bool:
    return all(is_answered(installation, p, HEADERS, model) for p in ("http", "grpc"))


def rejects_strangers(installation: Installation, model: str) -> bool:
    return all(is_rejected(installation, p, {}, model) for p in ("http", "grpc"))


def of_rollout(installation: Installation, model: str) -> set[str]:
    """Return the objects of the rollout controller for a model."""
    selector = f"--selector=watchkeeper/model={model},app.kubernetes.io/part-of=watchkeeper"
    found = items(OF_ROLLOUT, selector, f"--namespace={installation.namespace}")
    return {f"{each['kind']}/{each['metadata']['name']}" for each in found}
