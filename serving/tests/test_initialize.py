"""Fetching a version, by the real client, from a registry that is a folder."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import a_version
import pytest
from conftest import free_ports
from mlflow.tracking import MlflowClient
from waiting import wait_for

from watchkeeper.contracts.version import MANIFEST, UNREACHABLE, read_manifest
from watchkeeper.serving.initialize import initialize

URI = f"mlflow://{a_version.MODEL}/1"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    uri = f"file://{tmp_path}/registry"
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def register(registry: str, version: Path) -> None:
    client = MlflowClient(registry, registry)
    client.create_registered_model(a_version.MODEL)
    client.create_model_version(a_version.MODEL, source=str(version))


def run(log: Path, *arguments: str, **environment: str) -> int:
    """Run it as a process; the exit code, and no traceback in its log."""
    with log.open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "watchkeeper.serving.initialize", *arguments],
            env={**os.environ, **environment},
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )
    assert "Traceback" not in log.read_text()
    return done.returncode


def test_a_registered_version_is_fetched_whole(
    registry: str, version: Path, tmp_path: Path
) -> None:
    register(registry, version)
    folder = tmp_path / "mount"
    folder.mkdir()
    assert run(tmp_path / "log", URI, str(folder)) == 0
    assert read_manifest(folder) == read_manifest(version)


def test_a_version_that_is_there_needs_no_registry(version: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(version, tmp_path / "model"))
    nowhere = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}
    assert run(tmp_path / "log", URI, str(folder), **nowhere) == 0


@pytest.mark.parametrize(
    "leave",
    [
        lambda folder: (folder / MANIFEST).unlink(),
        lambda folder: (folder / f"{a_version.SCORE}.onnx").write_bytes(b""),
    ],
)
def test_what_a_killed_run_has_left_is_fetched_again(
    registry: str, version: Path, tmp_path: Path, leave: Callable[[Path], None]
) -> None:
    register(registry, version)
    folder = Path(shutil.copytree(version, tmp_path / "model"))
    leave(folder)
    initialize(URI, folder, 10)
    assert read_manifest(folder) == read_manifest(version)


def test_a_version_that_comes_later_is_waited_for(
    registry: str, version: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "model"
    thread = threading.Thread(target=initialize, args=(URI, folder, 30))
    thread.start()
    wait_for(lambda: "trying again" in caplog.text, what="a first try")
    register(registry, version)
    thread.join(30)
    assert read_manifest(folder) == read_manifest(version)


def test_without_a_registry_it_ends_in_time_and_says_why(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    log = tmp_path / "log"
    before = time.monotonic()
    code = run(
        log,
        URI,
        str(tmp_path / "model"),
        MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}",
        WATCHKEEPER_INITIALIZE_SECONDS="1",
    )
    assert code == UNREACHABLE
    assert time.monotonic() - before < 30
    assert f"{URI} could not be had in 1 s" in log.read_text()


def test_a_version_that_the_registry_does_not_have_is_not_to_be_waited_for(
    registry: str, tmp_path: Path
) -> None:
    MlflowClient(registry, registry).create_registered_model(a_version.MODEL)
    log = tmp_path / "log"
    code = run(log, URI, str(tmp_path / "model"), WATCHKEEPER_INITIALIZE_SECONDS="1")
    assert code == 1
    assert f"{URI} could not be had in 1 s" in log.read_text()


def test_an_altered_version_is_never_accepted(registry: str, version: Path, tmp_path: Path) -> None:
    altered = Path(shutil.copytree(version, tmp_path / "altered"))
    (altered / f"{a_version.SCORE}.onnx").write_bytes(b"")
    register(registry, altered)
    with pytest.raises(RuntimeError, match="SHA-256"):
        initialize(URI, tmp_path / "model", 0.1)


@pytest.mark.parametrize(
    "arguments",
    [("one",), ("mlflow://m/latest", "f"), ("runs:/m/7", "f"), ("mlflow://m/7", "f", "g")],
)
@pytest.mark.usefixtures("registry")
def test_wrong_arguments_are_told(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert run(tmp_path / "log", *arguments) == 2
    assert "mlflow://" in (tmp_path / "log").read_text()
