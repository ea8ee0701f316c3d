"""A real server of one version, for tests; it runs in serving's environment."""

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PYTHON = Path(__file__).parents[2] / "serving" / ".venv" / "bin" / "python"
CLIENT = Path(__file__).with_name("v2_client.py")
SECONDS = 60.0


@contextmanager
def serve(model: str, folder: Path, workspace: Path) -> Iterator[tuple[int, int]]:
    """Run a server of the version in ``folder``; yield its ports for HTTP and gRPC.

    Its spool is the folder ``spool`` of the workspace.
    """
    if not PYTHON.exists():
        pytest.fail(f"{PYTHON} is missing: run make environments")
    with contextlib.ExitStack() as held:
        free = [held.enter_context(socket.socket()) for _ in range(3)]
        for each in free:
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in free]
    settings = {
        "MODEL": model,
        "VERSION": "1",
        "MODEL_FOLDER": folder,
        "SPOOL": workspace / "spool",
        "SIGNING_KEY": "a key",
        "FEEDBACK_TOKEN": "a token",
        "DRAIN_SECONDS": "0",
        **dict(zip(("HTTP_PORT", "GRPC_PORT", "METRICS_PORT"), ports, strict=True)),
    }
    environment = {f"WATCHKEEPER_{name}": str(value) for name, value in settings.items()}
    with (workspace / "log").open("wb") as log:
        server = subprocess.Popen(
            [PYTHON, "-m", "watchkeeper.serving"],
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + SECONDS
        while not _ready(ports[0]):
            assert server.poll() is None, (workspace / "log").read_text()
            assert time.monotonic() < deadline, (workspace / "log").read_text()
            time.sleep(0.1)
        yield ports[0], ports[1]
    finally:
        server.terminate()
        server.wait(timeout=SECONDS)


def infer(
    ports: tuple[int, int], model: str, datatypes: dict[str, str], columns: dict[str, list[Any]]
) -> dict[str, dict[str, list[Any]]]:
    """Send columns to a server with Triton's client; return outputs by protocol and name."""
    done = subprocess.run(
        [PYTHON, CLIENT, *map(str, ports), model],
        input=json.dumps({"datatypes": datatypes, "columns": columns}),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, dict[str, list[Any]]] = json.loads(done.stdout)
    return answers


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5) as found:
            return bool(found.status == 200)
    except OSError:
        return False
