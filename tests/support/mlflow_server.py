"""A real MLflow server for tests: ``pytest_plugins = ["mlflow_server"]`` in a conftest.py."""

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from free_ports import free_port

from watchkeeper.registry import Registry

MLFLOW = Path(__file__).parents[2] / "images" / "mlflow" / ".venv" / "bin" / "mlflow"
START_SECONDS = 300.0  # a busy machine needs minutes


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A client of a real server with SQLite and a folder of files behind it."""
    if not MLFLOW.exists():
        pytest.fail(f"{MLFLOW} is missing: run make environments")
    folder = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    command = [str(MLFLOW), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "files")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    uri = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{uri}/health", server, folder / "log")
        os.environ["MLFLOW_TRACKING_URI"] = uri
        yield Registry(uri)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(timeout=10)


def _wait_for(address: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):  # noqa: S310 - our own server
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"MLflow did not start:\n{log.read_text()[-2000:]}")
