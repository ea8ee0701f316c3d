"""MLflow requires a password, and every container that calls it has the password."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from http import HTTPStatus
from http.cookiejar import CookieJar
from pathlib import Path

import pytest
from rendering import CHART, MODEL, MODELS, Json, containers, inference_services, rendered

REGISTRY = CHART.parents[1] / "images" / "mlflow"
PASSWORD = "100% of a-password: with+signs"
PASSWORDS = {
    "watchkeeper": PASSWORD,
    "serving": "for-%-servers:",
    "training": "for+training",
}
SEARCH = "/api/2.0/mlflow/registered-models/search"
START_SECONDS = 120.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a database and a password."""
    if not (REGISTRY / ".venv/bin/mlflow").exists():
        pytest.skip("MLflow has no environment; run `make environments`")
    made = tmp_path_factory.mktemp("mlflow")
    (made / "password").write_text(PASSWORD)
    (made / "users" / "..data").mkdir(parents=True)
    for user in ("serving", "training"):
        (made / "users" / user).write_text(PASSWORDS[user])
    return made


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    """The port of an MLflow server that is started as in its image."""
    with serving(folder, "one") as chosen:
        yield chosen


@pytest.fixture(scope="module")
def other_port(folder: Path, port: int) -> Iterator[int]:  # noqa: ARG001 - the first has the tables
    """The port of a second pod, with the same database and the same Secret."""
    with serving(folder, "two") as chosen:
        yield chosen


@contextlib.contextmanager
def serving(folder: Path, name: str) -> Iterator[int]:
    """Run a server for a block, with a temporary folder of its own."""
    (folder / name).mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        chosen: int = free.getsockname()[1]
    environment = {
        "PATH": f"{REGISTRY}/.venv/bin:{os.environ['PATH']}",
        "HOME": str(folder / name),
        "TMPDIR": str(folder / name),
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/100%25.db",
        "MLFLOW_AUTH_ADMIN_USERNAME": "watchkeeper",
        "MLFLOW_AUTH_ADMIN_PASSWORD_FILE": str(folder / "password"),
        "MLFLOW_USERS": str(folder / "users"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    words = [f"--port={chosen}", "--workers=1", f"--allowed-hosts=127.0.0.1:{chosen}"]
    log = folder / name / "log"
    with (
        log.open("w") as file,
        subprocess.Popen(
            [REGISTRY / "start", "server", *words],
            cwd=folder / name,
            env=environment,
            stdout=file,
            stderr=file,
        ) as mlflow,
    ):
        try:
            deadline = time.monotonic() + START_SECONDS
            while status_of(chosen, "/health") != HTTPStatus.OK:
                assert mlflow.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.5)
            yield chosen
        finally:
            mlflow.terminate()


def status_of(port: int, path: str, **headers: str) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def basic(user: str, password: str) -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def test_a_request_without_the_password_is_rejected(port: int) -> None:
    assert status_of(port, SEARCH) == HTTPStatus.UNAUTHORIZED
    wrong = basic("watchkeeper", "another password")
    assert status_of(port, SEARCH, Authorization=wrong) == HTTPStatus.UNAUTHORIZED
    assert status_of(port, "/api/2.0/mlflow-artifacts/artifacts") == HTTPStatus.UNAUTHORIZED
    assert status_of(port, SEARCH, Authorization=basic("watchkeeper", PASSWORD)) == HTTPStatus.OK


def test_a_request_to_an_unknown_host_is_rejected(port: int) -> None:
    known = basic("watchkeeper", PASSWORD)
    answer = status_of(port, SEARCH, Authorization=known, Host="mlflow.example.com")
    assert answer == HTTPStatus.FORBIDDEN


def test_a_form_of_one_pod_is_accepted_by_another(port: int, other_port: int) -> None:
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    opener.addheaders = [("Authorization", basic("watchkeeper", PASSWORD))]
    with opener.open(f"http://127.0.0.1:{port}/signup") as page:
        (token,) = re.findall(r'name="csrf_token"\s+value="([^"]+)"', page.read().decode())
    form = {"csrf_token": token, "username": "anna", "password": "twelve characters"}
    url = f"http://127.0.0.1:{other_port}/api/2.0/mlflow/users/create-ui"
    with opener.open(url, urllib.parse.urlencode(form).encode()) as answer:
        assert "Successfully signed up" in answer.read().decode()
    known = basic("anna", "twelve characters")
    assert status_of(port, SEARCH, Authorization=known) == HTTPStatus.OK


def test_it_does_not_start_without_its_password(tmp_path: Path) -> None:
    environment = {**os.environ, "MLFLOW_AUTH_ADMIN_PASSWORD_FILE": str(tmp_path / "none")}
    ended = subprocess.run(
        [REGISTRY / "start", "server"], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode != 0
    assert "the password is missing" in ended.stderr


@pytest.mark.parametrize(
    ("registry", "users"),
    [
        ("postgresql+psycopg://w:p%40ss@db/mlflow", "postgresql+psycopg://w:p%%40ss@db/mlflow"),
        ("mysql+pymysql://w:p%40ss@db/mlflow", "sqlite:///{folder}/users.db"),
    ],
)
def test_users_are_in_the_database_of_the_registry_unless_that_is_mysql(
    tmp_path: Path, registry: str, users: str
) -> None:
    shows = tmp_path / "mlflow"
    shows.write_text('#!/bin/sh\ncat "$MLFLOW_AUTH_CONFIG_PATH"\necho "$@"\n')
    shows.chmod(0o755)
    (tmp_path / "password").write_text(PASSWORD)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "TMPDIR": str(tmp_path),
        "MLFLOW_BACKEND_STORE_URI": registry,
        "MLFLOW_AUTH_ADMIN_PASSWORD_FILE": str(tmp_path / "password"),
    }
    said = subprocess.run(
        [REGISTRY / "start", "server"], env=environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert f"database_uri = {users.format(folder=tmp_path)}" in said
    assert said[-1] == "server --app-name=basic-auth"


def started(folder: Path, name: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the start script with a program in place of MLflow that prints the key of the forms."""
    pod = folder / name
    pod.mkdir()
    shows = pod / "mlflow"
    shows.write_text('#!/bin/sh\necho "$MLFLOW_FLASK_SERVER_SECRET_KEY"\n')
    shows.chmod(0o755)
    (folder / "password").write_text(PASSWORD)
    environment = {
        "PATH": f"{pod}:{os.environ['PATH']}",
        "TMPDIR": str(pod),
        "MLFLOW_BACKEND_STORE_URI": "postgresql+psycopg://w:p%40ss@db/mlflow",
        "MLFLOW_AUTH_ADMIN_PASSWORD_FILE": str(folder / "password"),
    }
    return subprocess.run(
        [REGISTRY / "start", "server"],
        env=environment | settings,
        capture_output=True,
        text=True,
        check=False,
    )


def test_all_pods_sign_forms_with_one_key_that_only_the_secret_gives(tmp_path: Path) -> None:
    one, two = (started(tmp_path, name).stdout for name in ("one", "two"))
    assert one == two
    assert len(one.strip()) == 64
    other = {"MLFLOW_BACKEND_STORE_URI": "postgresql+psycopg://w:other@db/mlflow"}
    assert started(tmp_path, "three", **other).stdout != one


def test_several_pods_with_users_of_their_own_do_not_start(tmp_path: Path) -> None:
    mysql = {"MLFLOW_BACKEND_STORE_URI": "mysql+pymysql://w:p@db/mlflow"}
    assert started(tmp_path, "one", **mysql, MLFLOW_REPLICAS="1").returncode == 0
    done = started(tmp_path, "two", **mysql, MLFLOW_REPLICAS="2")
    assert done.returncode == 78
    assert "on MySQL and MariaDB each of them has users of its own" in done.stderr


def ask(port: int, user: str, path: str, body: Json, method: str = "POST") -> int:
    """Call MLflow's API as a user, and return the status."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/2.0/mlflow/{path}",
        data=json.dumps(body).encode(),
        headers={
            "Authorization": basic(user, PASSWORDS[user]),
            "Content-Type": "application/json",
        },
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_training_registers_and_servers_only_read(port: int) -> None:
    admin, training, servers = "watchkeeper", "training", "serving"
    # The administrator has created a model before there were other users.
    assert ask(port, admin, "registered-models/create", {"name": "pump"}) == HTTPStatus.OK
    assert ask(port, training, "experiments/create", {"name": "pump"}) == HTTPStatus.OK
    version = {"name": "pump", "source": "s3://bucket/model"}
    assert ask(port, training, "model-versions/create", version) == HTTPStatus.OK
    named = "registered-models/get?name=pump"
    assert ask(port, servers, named, {}, "GET") == HTTPStatus.OK
    assert ask(port, servers, "model-versions/get?name=pump&version=1", {}, "GET") == HTTPStatus.OK
    alias = {"name": "pump", "alias": "production", "version": "1"}
    for path, body in (
        ("registered-models/alias", alias),
        ("model-versions/create", version),
        ("registered-models/set-tag", {"name": "pump", "key": "a", "value": "b"}),
    ):
        assert ask(port, servers, path, body) == HTTPStatus.FORBIDDEN, path
    assert ask(port, admin, "registered-models/alias", alias) == HTTPStatus.OK
    user = {"username": "stranger", "password": "a long password"}
    for who in (training, servers):
        assert ask(port, who, "users/create", user) == HTTPStatus.FORBIDDEN
        gone = {"name": "pump"}
        assert ask(port, who, "registered-models/delete", gone, "DELETE") == HTTPStatus.FORBIDDEN


def test_a_changed_password_of_a_user_takes_effect_at_the_next_start(folder: Path) -> None:
    (folder / "users" / "serving").write_text("another password")
    try:
        with serving(folder, "changed") as port:
            old = basic("serving", PASSWORDS["serving"])
            new = basic("serving", "another password")
            assert status_of(port, SEARCH, Authorization=new) == HTTPStatus.OK
            assert status_of(port, SEARCH, Authorization=old) == HTTPStatus.UNAUTHORIZED
    finally:
        (folder / "users" / "serving").write_text(PASSWORDS["serving"])


ADMINISTRATOR = ("watchkeeper", "mlflow-password")
SERVING = ("serving", "mlflow-serving-password")
TRAINING = ("training", "mlflow-training-password")
OWN: Json = {"enabled": False, "url": "http://mlflow.example.com:5000", "auth": {"username": "me"}}


@pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on PATH")
@pytest.mark.parametrize(
    ("mlflow", "expected"),
    [
        ({}, {"rollout": ADMINISTRATOR, "training": TRAINING, "storage-initializer": SERVING}),
        ({"auth": {"enabled": False}}, {}),
        (OWN, dict.fromkeys(("rollout", "training", "test"), ("me", "mlflow-password"))),
    ],
)
def test_every_client_has_its_own_user_if_mlflow_requires_one(
    mlflow: Json, expected: dict[str, tuple[str, str]]
) -> None:
    found = dict(callers(mlflow))
    assert {"rollout", "cli", "training", "storage-initializer", "test"} <= set(found)
    assert found["cli"] == found["rollout"]
    assert found["test"] == found["storage-initializer"]
    assert all(found[name] == user for name, user in expected.items())
    assert bool(expected) == all(found.values())


def callers(mlflow: Json) -> Iterator[tuple[str, tuple[str, str] | None]]:
    """Return the containers with the URL of MLflow, with their user and the key of its password."""
    objects = rendered({"models": {"a": MODELS[MODEL]}, "mlflow": mlflow})
    (service,) = inference_services(objects, "plant")
    for each in objects:
        for container, volumes in containers(each):
            variables = {variable["name"]: variable for variable in container.get("env", [])}
            if "MLFLOW_TRACKING_URI" not in variables:
                continue
            user = variables.get("MLFLOW_TRACKING_USERNAME", {}).get("value")
            # KServe adds the container without volumes to the pods of the InferenceService.
            mounted = volumes or service["spec"]["predictor"]["volumes"]
            key = password_key(container, variables, mounted)
            assert (user is None) == (key is None)
            yield container["name"], (user, key) if user and key else None


def password_key(container: Json, variables: Json, volumes: list[Json]) -> str | None:
    if "MLFLOW_TRACKING_PASSWORD_FILE" not in variables:
        return None
    path = Path(variables["MLFLOW_TRACKING_PASSWORD_FILE"]["value"])
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    (volume,) = (each for each in volumes if each["name"] == mounts[str(path.parent)])
    (found,) = (e["key"] for e in volume["secret"]["items"] if e["path"] == path.name)
    return str(found)


def test_the_migration_reads_the_url_from_a_file_and_shows_it_to_nobody(folder: Path) -> None:
    url = folder / "url"
    url.write_text(f"sqlite:///{folder}/migrated.db")
    environment = {
        "PATH": f"{REGISTRY}/.venv/bin:{os.environ['PATH']}",
        "HOME": str(folder),
        "MLFLOW_BACKEND_STORE_URI_FILE": str(url),
    }
    with subprocess.Popen(
        [REGISTRY / "start", "db", "upgrade"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        shown = set()
        while process.poll() is None:
            shown.add(Path(f"/proc/{process.pid}/cmdline").read_text().replace("\0", " "))
            time.sleep(0.05)
        assert process.stderr is not None
        assert process.returncode == 0, process.stderr.read()
    assert any("upgrade" in words for words in shown)
    assert not any("migrated" in words for words in shown)
    assert (folder / "migrated.db").stat().st_size > 0
