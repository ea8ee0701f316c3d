"""MLflow asks who calls: what its image starts does, and whoever the chart lets call can answer."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[1]
REGISTRY = CHART.parents[1] / "registry"
PASSWORD = "100% of a-password: with+signs"
SEARCH = "/api/2.0/mlflow/registered-models/search"
START_SECONDS = 120.0


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Start MLflow as its image does, with the environment that its image has."""
    if not (REGISTRY / ".venv/bin/mlflow").exists():
        pytest.skip("no environment of MLflow: make registry/.venv/.locked")
    folder = tmp_path_factory.mktemp("mlflow")
    (folder / "password").write_text(PASSWORD)
    with socket.create_server(("127.0.0.1", 0)) as free:
        chosen: int = free.getsockname()[1]
    given = {
        "PATH": f"{REGISTRY}/.venv/bin:{os.environ['PATH']}",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/100%25.db",
        "MLFLOW_AUTH_ADMIN_USERNAME": "watchkeeper",
        "MLFLOW_AUTH_ADMIN_PASSWORD_FILE": str(folder / "password"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    words = [f"--port={chosen}", "--workers=1", f"--allowed-hosts=127.0.0.1:{chosen}"]
    log = folder / "log"
    with (
        log.open("w") as file,
        subprocess.Popen(
            [REGISTRY / "start", "server", *words],
            cwd=folder,
            env=given,
            stdout=file,
            stderr=file,
        ) as mlflow,
    ):
        try:
            deadline = time.monotonic() + START_SECONDS
            while asked(chosen, "/health") != HTTPStatus.OK:
                assert mlflow.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.5)
            yield chosen
        finally:
            mlflow.terminate()


def asked(port: int, path: str, **headers: str) -> int:
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


def test_nobody_is_let_in_without_the_password(port: int) -> None:
    assert asked(port, SEARCH) == HTTPStatus.UNAUTHORIZED
    wrong = basic("watchkeeper", "another password")
    assert asked(port, SEARCH, Authorization=wrong) == HTTPStatus.UNAUTHORIZED
    assert asked(port, "/api/2.0/mlflow-artifacts/artifacts") == HTTPStatus.UNAUTHORIZED
    assert asked(port, SEARCH, Authorization=basic("watchkeeper", PASSWORD)) == HTTPStatus.OK


def test_it_answers_to_its_own_names_only(port: int) -> None:
    known = basic("watchkeeper", PASSWORD)
    answer = asked(port, SEARCH, Authorization=known, Host="mlflow.example.com")
    assert answer == HTTPStatus.FORBIDDEN


def test_without_its_password_it_does_not_start(tmp_path: Path) -> None:
    given = {**os.environ, "MLFLOW_AUTH_ADMIN_PASSWORD_FILE": str(tmp_path / "none")}
    ended = subprocess.run(
        [REGISTRY / "start", "server"], env=given, capture_output=True, text=True, check=False
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
def test_users_are_beside_the_registry_unless_that_is_mysql(
    tmp_path: Path, registry: str, users: str
) -> None:
    shows = tmp_path / "mlflow"
    shows.write_text('#!/bin/sh\ncat "$MLFLOW_AUTH_CONFIG_PATH"\necho "$@"\n')
    shows.chmod(0o755)
    (tmp_path / "password").write_text(PASSWORD)
    given = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "TMPDIR": str(tmp_path),
        "MLFLOW_BACKEND_STORE_URI": registry,
        "MLFLOW_AUTH_ADMIN_PASSWORD_FILE": str(tmp_path / "password"),
    }
    said = subprocess.run(
        [REGISTRY / "start", "server"], env=given, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert f"database_uri = {users.format(folder=tmp_path)}" in said
    assert said[-1] == "server --app-name=basic-auth"


@pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on PATH")
@pytest.mark.parametrize("enabled", [True, False])
def test_whoever_calls_mlflow_has_its_password_if_it_asks(*, enabled: bool) -> None:
    found = dict(callers(enabled=enabled))
    assert {"rollout", "cli", "training", "storage-initializer", "test", "a"} <= set(found)
    assert set(found.values()) == {enabled}


def callers(*, enabled: bool) -> Iterator[tuple[str, bool]]:
    """Name the containers that know where MLflow is, and say whether they have its password."""
    words = ["helm", "template", "w", str(CHART), "--set=models.a.source.secretName=plant"]
    words.append(f"--set=mlflow.auth.enabled={json.dumps(enabled)}")
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    for one in yaml.load_all(text, yaml.CSafeLoader):
        for container, volumes in containers(one):
            variables = {variable["name"]: variable for variable in container.get("env", [])}
            if "MLFLOW_TRACKING_URI" in variables:
                yield container["name"], has_password(container, variables, volumes)


def has_password(
    container: dict[str, Any], variables: dict[str, Any], volumes: list[dict[str, Any]]
) -> bool:
    if variables.get("MLFLOW_TRACKING_USERNAME", {}).get("value") != "watchkeeper":
        return False
    if direct := variables.get("MLFLOW_TRACKING_PASSWORD"):
        return bool(direct["valueFrom"]["secretKeyRef"]["key"] == "mlflow-password")
    path = Path(variables["MLFLOW_TRACKING_PASSWORD_FILE"]["value"])
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    (volume,) = (one for one in volumes if one["name"] == mounts[str(path.parent)])
    return {"key": "mlflow-password", "path": path.name} in volume["secret"]["items"]


def containers(node: Any) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Find every container of an object, with the volumes beside it."""
    if isinstance(node, list):
        for one in node:
            yield from containers(one)
    elif isinstance(node, dict):
        for key in ("containers", "initContainers"):
            for one in node.get(key, []):
                yield one, node.get("volumes", [])
        if "image" in node.get("container", {}):
            yield node["container"], []
        for value in node.values():
            yield from containers(value)
