"""With client authentication only known clients get answers; labels have their own token."""

import json
import secrets
import time
from collections.abc import Iterator

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from declared_models import FIRST as MODEL
from installation import RELEASE, Installation
from kube import Json, apply, helm, kubectl, secret, wait_until
from single_requests import Headers, infer, is_rejected

from watchkeeper.core.prediction_id import request_of
from watchkeeper.ledger.lookup import find_prediction

CLIENT = "press-shop"
PATH = f"/v2/models/{MODEL}"
ISSUER, AUDIENCE = "https://issuer.example.com", "watchkeeper"


@pytest.fixture(scope="module", params=["apiKey", "jwt"])
def credentials(request: pytest.FixtureRequest, installation: Installation) -> list[Headers]:
    """Enable a kind of authentication; return the headers of a known client, then invalid ones."""
    values, *headers = {"apiKey": api_keys, "jwt": tokens}[request.param](installation)
    installation.install(auth={"clients": {"mode": request.param, **values}})
    wait_until("no credential is rejected", lambda: is_rejected(installation, "http", {}))
    wait_until(
        "a known client is answered", lambda: not is_rejected(installation, "http", headers[0])
    )
    # The gateway checks credentials before its route lets the name of the client through.
    wait_until("its name is recorded", lambda: client_of(installation, headers[0]) == CLIENT)
    return headers


@pytest.fixture(scope="module", autouse=True)
def without_authentication(installation: Installation) -> Iterator[None]:
    """Disable authentication at the end."""
    yield
    installation.install()
    wait_until("everybody is answered", lambda: not is_rejected(installation, "http", {}))
    namespace = f"--namespace={installation.namespace}"
    kubectl("delete", "secret/clients", "configmap/issuer", "--ignore-not-found", namespace)


def api_keys(installation: Installation) -> tuple[Json, Headers, Headers]:
    """Create a key of the client; return the values, its headers, and those with a wrong key."""
    key = secrets.token_hex(16)
    apply(secret(installation.namespace, "clients", {CLIENT: key}))
    wrong = {"x-api-key": secrets.token_hex(16)}
    return {"apiKey": {"secretNames": ["clients"]}}, {"x-api-key": key}, wrong


def tokens(installation: Installation) -> tuple[Json, *tuple[Headers, ...]]:
    """Create a token of the client; return the values, its headers, and those of invalid tokens.

    The invalid tokens have another signer, another audience, and an expiry in the past.
    """
    ours, theirs = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    public = jwt.algorithms.RSAAlgorithm.to_jwk(ours.public_key(), as_dict=True)
    keys = {"keys": [{**public, "kid": "one", "alg": "RS256", "use": "sig"}]}
    metadata = {"name": "issuer", "namespace": installation.namespace}
    data = {"jwks": json.dumps(keys)}
    apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": CLIENT, "exp": now + 3600}
    signed = (
        (ours, claims),
        (theirs, claims),
        (ours, {**claims, "aud": "another"}),
        (ours, {**claims, "exp": now - 86400}),
    )
    headers = (
        {"authorization": "Bearer " + jwt.encode(each, key, "RS256", {"kid": "one"})}
        for key, each in signed
    )
    values = {"issuer": ISSUER, "audiences": [AUDIENCE], "jwksConfigMap": "issuer"}
    return {"jwt": values}, *headers


def client_of(installation: Installation, headers: Headers) -> str | None:
    """Send a request, and return the name of its client in the ledger."""
    prediction = infer(installation, "http", headers)
    return wait_until("its record", lambda: recorded(installation, prediction))


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_known_client_is_answered_and_its_name_is_recorded(
    installation: Installation, credentials: list[Headers], protocol: str
) -> None:
    prediction = infer(installation, protocol, {**credentials[0], "x-watchkeeper-client": "lab"})
    assert wait_until("its record", lambda: recorded(installation, prediction)) == CLIENT


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_invalid_credentials_are_rejected(
    installation: Installation, credentials: list[Headers], protocol: str
) -> None:
    for headers in ({}, *credentials[1:]):
        assert is_rejected(installation, protocol, headers), headers


def test_health_needs_no_credential_and_labels_need_their_own_token(
    installation: Installation, credentials: list[Headers]
) -> None:
    prediction = infer(installation, "http", credentials[0])
    labels = {"labels": [{"prediction_id": prediction, "row": 0, "value": 0}]}
    token = installation.secret("feedback-token")
    with httpx.Client(
        base_url=installation.endpoints().v2, headers={"Host": MODEL}, timeout=30
    ) as client:
        assert client.get(f"{PATH}/ready").status_code == 200
        path = f"{PATH}/feedback"
        assert client.post(path, json=labels, headers=credentials[0]).status_code == 401
        authorized = {"authorization": f"Bearer {token}"}
        assert client.post(path, json=labels, headers=authorized).status_code == 202


@pytest.mark.usefixtures("credentials")
def test_helm_test_is_refused_by_the_gateway_and_answered_by_the_servers(
    installation: Installation,
) -> None:
    namespace = f"--namespace={installation.namespace}"
    output = helm("test", RELEASE, namespace, "--logs", "--timeout=3m")
    for protocol in ("HTTP", "gRPC"):
        assert f"{MODEL}: the gateway refuses {protocol} without a credential" in output
        assert f"answers over {protocol} past the gateway" in output


def recorded(installation: Installation, prediction: str) -> str | None:
    """Return the client's name in the ledger, or None if the record is not there yet."""
    found = find_prediction(installation.ledger, request_of(prediction))
    return found.prediction.client if found else None
