"""Only known clients are answered once that is asked for; labels need a credential of their own."""

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import jwt
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from cryptography.hazmat.primitives.asymmetric import rsa
from installation import Installation
from kube import Json, apply, kubectl, secret_of, until
from rows import ROWS
from sqlalchemy import select
from tritonclient.utils import InferenceServerException

from watchkeeper.contracts.prediction_id import request_of
from watchkeeper.demo.clients import tensors
from watchkeeper.demo.worlds import find
from watchkeeper.ledger import tables as t

MODEL, CLIENT = "ai4i-failure", "press-shop"
PATH = f"/v2/models/{MODEL}"
ISSUER, AUDIENCE = "https://issuer.example.com", "watchkeeper"
# nobody, or somebody with a token for another audience
TURNED_AWAY = ("401", "StatusCode.UNAUTHENTICATED", "403", "StatusCode.PERMISSION_DENIED")
Headers = Mapping[str, str]


@pytest.fixture(scope="module", params=["apiKey", "jwt"])
def known(request: pytest.FixtureRequest, installation: Installation) -> list[Headers]:
    """Ask for credentials of a kind: what a known client sends, and what some who pretend."""
    values, *headers = {"apiKey": api_keys, "jwt": tokens}[request.param](installation)
    installation.install(auth={"clients": {"mode": request.param, **values}})
    until("strangers are turned away", lambda: refused(installation, "http", {}))
    until("a known client is answered", lambda: not refused(installation, "http", headers[0]))
    return headers


@pytest.fixture(scope="module", autouse=True)
def open_again(installation: Installation) -> Iterator[None]:
    """Answer everybody again in the end."""
    yield
    installation.install()
    until("everybody is answered", lambda: not refused(installation, "http", {}))
    place = f"--namespace={installation.namespace}"
    kubectl("delete", "secret/clients", "configmap/issuer", "--ignore-not-found", place)


def api_keys(installation: Installation) -> tuple[Json, Headers, Headers]:
    """Give the client a key; return the values, its headers, and those of a stranger."""
    key = secrets.token_hex(16)
    apply(secret_of(installation.namespace, "clients", {CLIENT: key}))
    wrong = {"x-api-key": secrets.token_hex(16)}
    return {"apiKey": {"secretNames": ["clients"]}}, {"x-api-key": key}, wrong


def tokens(installation: Installation) -> tuple[Json, *tuple[Headers, ...]]:
    """Sign a token for the client; return the values, its headers, and those with the token of
    another signer, for somebody else, and of yesterday.
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


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_known_client_is_answered_and_recorded_by_its_name(
    installation: Installation, known: list[Headers], protocol: str
) -> None:
    prediction = infer(installation, protocol, {**known[0], "x-watchkeeper-client": "lab"})
    assert until("its record", lambda: recorded(installation, prediction)) == CLIENT


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_nobody_else_is_answered(
    installation: Installation, known: list[Headers], protocol: str
) -> None:
    for pretended in ({}, *known[1:]):
        assert refused(installation, protocol, pretended), pretended


def test_health_is_told_to_everybody_and_labels_need_their_own_token(
    installation: Installation, known: list[Headers]
) -> None:
    prediction = infer(installation, "http", known[0])
    labels = {"labels": [{"prediction_id": prediction, "row": 0, "value": 0}]}
    token = installation.secret("feedback-token")
    with httpx.Client(
        base_url=installation.endpoints().v2, headers={"Host": MODEL}, timeout=30
    ) as client:
        assert client.get(f"{PATH}/ready").status_code == 200
        path = f"{PATH}/feedback"
        assert client.post(path, json=labels, headers=known[0]).status_code == 401
        mine = {"authorization": f"Bearer {token}"}
        assert client.post(path, json=labels, headers=mine).status_code == 202


def infer(installation: Installation, protocol: str, headers: Headers) -> str:
    """Ask for one row, and return the prediction's id.

    Raises:
        InferenceServerException: it was not answered.
    """
    address, given = installation.endpoints().address, dict(headers)
    row, columns = ROWS[MODEL], find(MODEL).columns
    answer: Any
    if protocol == "http":
        with triton_http.InferenceServerClient(address) as client:
            inputs = tensors(triton_http.InferInput, columns, row)
            answer = client.infer(MODEL, inputs, headers={"Host": MODEL, **given})
        return str(answer.get_response()["parameters"]["prediction_id"])
    host = [("grpc.default_authority", MODEL)]
    with triton_grpc.InferenceServerClient(address, channel_args=host) as client:
        inputs = tensors(triton_grpc.InferInput, columns, row)
        answer = client.infer(MODEL, inputs, headers=given)
    return str(answer.get_response().parameters["prediction_id"].string_param)


def refused(installation: Installation, protocol: str, headers: Headers) -> bool:
    """Tell whether the gateway turns away one who sends these headers."""
    try:
        infer(installation, protocol, headers)
    except InferenceServerException as error:
        if error.status() in TURNED_AWAY:
            return True
        raise
    return False


def recorded(installation: Installation, prediction: str) -> str | None:
    """Return the client's name in the ledger, None before the record is there."""
    p = t.predictions.c
    query = select(p.client).where(p.model == MODEL, p.id == request_of(prediction))
    with installation.ledger.read() as connection:
        return connection.execute(query).scalar()
