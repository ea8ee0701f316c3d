"""Real parts: an MLflow server for all tests, a ledger for each."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from watchkeeper.ledger import Ledger, migrate
from watchkeeper.registry import Registry

MLFLOW = Path(__file__).parents[2] / "registry" / ".venv" / "bin" / "mlflow"
START_SECONDS = 120
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A client of a real server."""
    if not MLFLOW.exists():
        pytest.fail(f"{MLFLOW} is missing: install the registry component first")
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"http://127.0.0.1:{free_port()}"
    command = [
        *(MLFLOW, "server", "--host", "127.0.0.1", "--port", uri.rpartition(":")[2]),
        *("--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
        *("--artifacts-destination", folder / "artifacts"),
    ]
    log = folder / "mlflow.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            list(map(str, command)),
            stdout=output,
            stderr=output,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(f"{uri}/health"):
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"MLflow does not answer: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        os.environ["MLFLOW_TRACKING_URI"] = uri
        yield Registry(uri)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(timeout=10)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    opened = Ledger(url)
    yield opened
    opened.close()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
