"""Download of a version with the real client from a registry in a folder."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sample_version
from conftest import PROCESS_SECONDS
from free_ports import free_ports
from mlflow.tracking import MlflowClient
from waiting import wait_for

from watchkeeper.core.exit_codes import EXIT_REGISTRY_UNREACHABLE
from watchkeeper.core.version import MANIFEST, digest, read_manifest
from watchkeeper.serving.initialize import initialize

URI = f"mlflow://{sample_version.MODEL}/1"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    uri = f"file://{tmp_path}/registry"
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def register(registry: str, version: Path) -> None:
    client = MlflowClient(registry, registry)
    client.create_registered_model(sample_version.MODEL)
    client.create_model_version(sample_version.MODEL, source=str(version))


def run(log: Path, *arguments: str, **environment: str) -> int:
    """Run the process and return its exit code; there must be no traceback in the log."""
    with log.open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "watchkeeper.serving.initialize", *arguments],
            env={**os.environ, **environment},
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=PROCESS_SECONDS,
            check=False,
        )
    assert "Traceback" not in log.read_text()
    return done.returncode


def test_registered_version_is_downloaded(registry: str, version: Path, tmp_path: Path) -> None:
    register(registry, version)
    folder = tmp_path / "mount"
    folder.mkdir()
    assert run(tmp_path / "log", URI, str(folder)) == 0
    assert read_manifest(folder) == read_manifest(version)


def test_complete_folder_needs_no_registry(version: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(version, tmp_path / "model"))
    nowhere = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}
    assert run(tmp_path / "log", URI, str(folder), **nowhere) == 0


@pytest.mark.parametrize(
    "leave",
    [
        lambda folder: (folder / MANIFEST).unlink(),
        lambda folder: (folder / f"{sample_version.SCORE}.onnx").write_bytes(b""),
    ],
)
def test_interrupted_download_is_repeated(
    registry: str, version: Path, tmp_path: Path, leave: Callable[[Path], None]
) -> None:
    register(registry, version)
    folder = Path(shutil.copytree(version, tmp_path / "model"))
    leave(folder)
    initialize(URI, folder, 10)
    assert read_manifest(folder) == read_manifest(version)


def test_version_that_is_registered_later_is_downloaded(
    registry: str, version: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "model"
    thread = threading.Thread(target=initialize, args=(URI, folder, 30))
    thread.start()
    wait_for(lambda: "trying again" in caplog.text, what="a first try")
    register(registry, version)
    thread.join(30)
    assert read_manifest(folder) == read_manifest(version)


def test_unreachable_registry_has_its_own_exit_code(tmp_path: Path) -> None:
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
    assert code == EXIT_REGISTRY_UNREACHABLE
    assert time.monotonic() - before < 30
    assert f"{URI} could not be downloaded in 1 s" in log.read_text()


def test_missing_version_has_the_exit_code_of_an_error(registry: str, tmp_path: Path) -> None:
    MlflowClient(registry, registry).create_registered_model(sample_version.MODEL)
    log = tmp_path / "log"
    code = run(log, URI, str(tmp_path / "model"), WATCHKEEPER_INITIALIZE_SECONDS="1")
    assert code == 1
    assert f"{URI} could not be downloaded in 1 s" in log.read_text()


def test_altered_version_is_not_accepted(registry: str, version: Path, tmp_path: Path) -> None:
    altered = Path(shutil.copytree(version, tmp_path / "altered"))
    (altered / f"{sample_version.SCORE}.onnx").write_bytes(b"")
    register(registry, altered)
    with pytest.raises(RuntimeError, match="SHA-256"):
        initialize(URI, tmp_path / "model", 0.1)


@pytest.mark.parametrize(
    "arguments",
    [("one",), ("mlflow://m/latest", "f"), ("runs:/m/7", "f"), ("mlflow://m/7", "f", "g")],
)
@pytest.mark.usefixtures("registry")
def test_wrong_arguments_are_reported(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert run(tmp_path / "log", *arguments) == 2
    assert "mlflow://" in (tmp_path / "log").read_text()


def test_content_is_fetched_by_its_digest_and_no_other_is_accepted(
    registry: str, version: Path, tmp_path: Path
) -> None:
    register(registry, version)
    folder = tmp_path / "model"
    initialize(f"{URI}/{digest(version)}", folder, 10)
    assert read_manifest(folder) == read_manifest(version)
    with pytest.raises(RuntimeError, match="other content"):
        initialize(f"{URI}/{'0' * 64}", tmp_path / "another", 0.1)


def test_complete_folder_with_other_content_is_refused(version: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(version, tmp_path / "model"))
    nowhere = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1", "WATCHKEEPER_INITIALIZE_SECONDS": "1"}
    assert run(tmp_path / "log", f"{URI}/{digest(version)}", str(folder), **nowhere) == 0
    code = run(tmp_path / "log", f"{URI}/{'0' * 64}", str(folder), **nowhere)
    assert code == EXIT_REGISTRY_UNREACHABLE
    assert not (folder / MANIFEST).exists()
