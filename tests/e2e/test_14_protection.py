"""Nobody is answered without a credential, whatever happens to the release.

Strangers ask all models over both protocols during every operation. A request without an answer is
no proof, so the known client must be answered at the points where the model serves.
"""

import secrets
from collections.abc import Iterator

import pytest
from declared_models import FIRST, MODELS, SECOND
from installation import RELEASE, Installation
from kube import (
    apply,
    get,
    helm,
    items,
    kubectl,
    secret,
    wait_until,
)
from past_the_gateway import past_the_gateway
from rollouts import serves_alone
from single_requests import is_answered, is_rejected
from stranger import Stranger

from watchkeeper.core.events import ModelRemoved
from watchkeeper.ledger.events import history

KEY = secrets.token_hex(16)
HEADERS = {"x-api-key": KEY}
AUTH = {"clients": {"mode": "apiKey", "apiKey": {"secretNames": ["clients"]}}}
OF_ROLLOUT = "httproutes,inferenceservices,backendtrafficpolicies,securitypolicies,networkpolicies"
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
