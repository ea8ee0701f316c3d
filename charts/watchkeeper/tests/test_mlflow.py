"""MLflow requires a password, and every container that calls it has the password."""

import contextlib
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
from rendering import CHART, MODEL, MODELS, Json, containers, rendered

REGISTRY = CHART.parents[1] / "images" / "mlflow"
PASSWORD = "100% of a-password: with+signs"
SEARCH = "/api/2.0/mlflow/registered-models/search"
START_SECONDS = 120.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a database and a password."""
    if not (REGISTRY / ".venv/bin/mlflow").exists():
        pytest.skip("MLflow has no environment; run `make environments`")
    made = tmp_path_factory.mktemp("mlflow")
    (made / "password").write_text(PASSWORD)
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


@pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on PATH")
@pytest.mark.parametrize("enabled", [True, False])
def test_every_client_has_the_password_if_it_is_required(*, enabled: bool) -> None:
    found = dict(callers(enabled=enabled))
    assert {"rollout", "cli", "training", "storage-initializer", "test"} <= set(found)
    assert set(found.values()) == {enabled}


def callers(*, enabled: bool) -> Iterator[tuple[str, bool]]:
    """Return the containers with the URL of MLflow, and whether they have its password."""
    values: Json = {"models": {"a": MODELS[MODEL]}, "mlflow": {"auth": {"enabled": enabled}}}
    for each in rendered(values):
        for container, volumes in containers(each):
            variables = {variable["name"]: variable for variable in container.get("env", [])}
            if "MLFLOW_TRACKING_URI" in variables:
                yield container["name"], has_password(container, variables, volumes)


def has_password(container: Json, variables: Json, volumes: list[Json]) -> bool:
    if variables.get("MLFLOW_TRACKING_USERNAME", {}).get("value") != "watchkeeper":
        return False
    if direct := variables.get("MLFLOW_TRACKING_PASSWORD"):
        return bool(direct["valueFrom"]["secretKeyRef"]["key"] == "mlflow-password")
    path = Path(variables["MLFLOW_TRACKING_PASSWORD_FILE"]["value"])
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    (volume,) = (each for each in volumes if each["name"] == mounts[str(path.parent)])
    return {"key": "mlflow-password", "path": path.name} in volume["secret"]["items"]
