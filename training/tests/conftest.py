"""The real parts: an MLflow server for all tests, an operational database, a ledger each."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import milling
import pytest

from watchkeeper.ledger import Ledger, migrate
from watchkeeper.registry import Registry

pytest_plugins = ["databases"]  # see tests/support/databases.py

MLFLOW = Path(__file__).parents[2] / "registry" / ".venv" / "bin" / "mlflow"


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A client of a real server with SQLite and a folder of files behind it."""
    if not MLFLOW.exists():
        pytest.fail(f"{MLFLOW} is missing: install the registry component first")
    place = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(MLFLOW), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{place}/mlflow.db"]
    command += ["--artifacts-destination", str(place / "files")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (place / "log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    uri = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{uri}/health", server, place / "log")
        os.environ["MLFLOW_TRACKING_URI"] = uri
        yield Registry(uri)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(timeout=10)


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of an operational database with 6,000 pieces."""
    return milling.database(tmp_path_factory.mktemp("plant") / "plant.db", milling.pieces(6000))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    opened = Ledger(url)
    yield opened
    opened.close()


def _wait_for(address: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):  # noqa: S310 - our own server
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"MLflow did not start:\n{log.read_text()[-2000:]}")
