"""A real server of a version that was trained here; runs in serving's environment."""

import contextlib
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SERVING = str(Path(__file__).parents[2] / "serving" / ".venv" / "bin" / "python")


@contextmanager
def served(model: str, folder: Path, place: Path) -> Iterator[tuple[int, int]]:
    """Run a real server of a version; its ports for HTTP and gRPC."""
    if not Path(SERVING).exists():
        pytest.fail(f"{SERVING} is missing: install the serving component first")
    with contextlib.ExitStack() as held:
        free = [held.enter_context(socket.socket()) for _ in range(3)]
        for each in free:
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in free]
    settings = {
        "MODEL": model,
        "VERSION": "1",
        "MODEL_FOLDER": folder,
        "SPOOL": place / "spool",
        "SIGNING_KEY": "a key",
        "FEEDBACK_TOKEN": "a token",
        "DRAIN_SECONDS": "0",
        **dict(zip(("HTTP_PORT", "GRPC_PORT", "METRICS_PORT"), ports, strict=True)),
    }
    environment = {f"WATCHKEEPER_{name}": str(value) for name, value in settings.items()}
    with (place / "log").open("wb") as log:
        server = subprocess.Popen(
            [SERVING, "-m", "watchkeeper.serving"],
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 60
        while not _ready(ports[0]):
            assert server.poll() is None, (place / "log").read_text()
            assert time.monotonic() < deadline, (place / "log").read_text()
            time.sleep(0.1)
        yield ports[0], ports[1]
    finally:
        server.terminate()
        server.wait(timeout=60)


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5) as found:
            return bool(found.status == 200)
    except OSError:
        return False
