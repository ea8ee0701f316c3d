"""Each part has its own credentials, and changed ones reach it without a lost request."""

import json
import secrets

import pytest
from declared_models import FIRST as MODEL
from declared_models import MODELS
from installation import RELEASE, Installation
from kube import Json, kubectl, read_secret, wait_until
from past_the_gateway import past_the_gateway
from single_requests import infer, is_answered
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from watchkeeper.core.prediction_id import request_of
from watchkeeper.ledger.lookup import find_prediction

WRITERS = f"{RELEASE}-ledger-writers"


def outside(installation: Installation, url: str, database: str = "ledger") -> URL:
    """Return a URL of a pod as this machine reaches it."""
    user = make_url(url)
    there = installation.ledger.engine.url
    return there.set(username=user.username, password=user.password, database=database)


def test_a_sidecar_sees_the_rows_of_its_own_model_only(installation: Installation) -> None:
    for model in MODELS:
        engine = create_engine(
            outside(installation, read_secret(installation.namespace, WRITERS, model))
        )
        with engine.connect() as connection:
            for table in ("events", "predictions", "spools"):
                query = text(f"SELECT DISTINCT model FROM {table}")  # noqa: S608
                assert set(connection.execute(query).scalars()) <= {model}, table
            spools = text("SELECT count(*) FROM spools")
            assert connection.execute(spools).scalar_one() > 0
        engine.dispose()


@pytest.mark.parametrize("key", ["mlflow-url", "ledger-reader-url"])
def test_mlflow_and_readers_cannot_change_records(installation: Installation, key: str) -> None:
    engine = create_engine(outside(installation, installation.secret(key)))
    with engine.connect() as connection, pytest.raises(DBAPIError, match="permission denied"):
        connection.execute(text("DELETE FROM predictions"))
    engine.dispose()


def test_readers_cannot_read_the_users_of_mlflow(installation: Installation) -> None:
    reader = outside(installation, installation.secret("ledger-reader-url"), "mlflow")
    engine = create_engine(reader)
    with engine.connect() as connection, pytest.raises(DBAPIError, match="permission denied"):
        connection.execute(text("SELECT * FROM users"))
    engine.dispose()


def test_a_changed_password_restarts_the_sidecars_and_no_server(
    installation: Installation,
) -> None:
    version = installation.model(MODEL)["production"]
    before = restarts(installation.pods(MODEL, version))
    old = make_url(read_secret(installation.namespace, WRITERS, MODEL))
    new = old.set(password=secrets.token_hex(16)).render_as_string(hide_password=False)
    patch = f'{{"stringData": {{"{MODEL}": "{new}"}}}}'
    namespace = f"--namespace={installation.namespace}"
    kubectl("patch", "secret", WRITERS, namespace, f"--patch={patch}")
    meanwhile = infer(installation, "http", {})
    installation.install()  # its migrations change the password in the database

    def restarted() -> bool:
        now = restarts(installation.pods(MODEL, version))
        return all(now[pod]["drift"] > before[pod]["drift"] for pod in before)

    wait_until("all sidecars have restarted", restarted, 240.0)
    after = infer(installation, "http", {})
    for prediction in (meanwhile, after):
        wait_until(
            "its record",
            lambda prediction=prediction: find_prediction(
                installation.ledger, request_of(prediction)
            ),
        )
    now = restarts(installation.pods(MODEL, version))
    servers = {pod: each["kserve-container"] for pod, each in now.items()}
    assert servers == {pod: each["kserve-container"] for pod, each in before.items()}


def test_the_token_of_the_gateway_is_replaced_without_a_refused_request(
    installation: Installation,
) -> None:
    namespace, name = f"--namespace={installation.namespace}", f"{RELEASE}-gateway"
    new = secrets.token_hex(16)
    version = installation.model(MODEL)["production"]

    def know(token: str) -> bool:
        """Return True if every server accepts a token."""
        headers = {"x-watchkeeper-gateway": token}
        pods = installation.pods(MODEL, version)
        return all(past_the_gateway(installation, pod, headers)[0] == 200 for pod in pods)

    old = read_secret(installation.namespace, name, "credential")
    patch = json.dumps({"stringData": {"next": new}})
    kubectl("patch", "secret", name, f"--patch={patch}", namespace)
    wait_until("all servers know the new token", lambda: know(new), seconds=180.0)
    assert know(old)
    patch = json.dumps({"stringData": {"credential": new, "previous": old}})
    kubectl("patch", "secret", name, f"--patch={patch}", namespace)
    for _ in range(20):
        assert answers(installation)
    remove = json.dumps([{"op": "remove", "path": f"/data/{key}"} for key in ("next", "previous")])
    kubectl("patch", "secret", name, "--type=json", f"--patch={remove}", namespace)
    while know(old):
        assert answers(installation)
    assert answers(installation)


def answers(installation: Installation) -> bool:
    return all(is_answered(installation, protocol, {}, MODEL) for protocol in ("http", "grpc"))


def restarts(pods: list[Json]) -> dict[str, dict[str, int]]:
    """Return the restarts of each container by pod."""
    return {
        pod["metadata"]["name"]: {
            status["name"]: status["restartCount"]
            for key in ("initContainerStatuses", "containerStatuses")
            for status in pod["status"].get(key, [])
        }
        for pod in pods
    }
