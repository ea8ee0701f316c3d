"""A server process; most tests share one."""

import atexit
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import sample_version
from free_ports import free_ports
from waiting import wait_for

from watchkeeper.core import spool as layout
from watchkeeper.core.record import Record, decode_line

KEY = "a signing key"
TOKEN = "a feedback token"
PROCESS_SECONDS = 300  # deadline for the end of a process; a busy machine is slow
MLSERVER_VARIABLES = {  # must have no effect
    "MLSERVER_DEBUG": "true",
    "MLSERVER_PARALLEL_WORKERS": "2",
    "MLSERVER_CORS_SETTINGS": '{"allow_origins":["*"]}',
    "MLSERVER_GZIP_ENABLED": "true",
    "MLSERVER_ROOT_PATH": "/x",
    "MLSERVER_MODEL_NAME": "y",
    "MLSERVER_MODEL_PARALLEL_WORKERS": "3",
}


HTTP = httpx.Client(timeout=60)  # shared, because creating a client takes 30 ms
atexit.register(HTTP.close)


class Server:
    """``python -m watchkeeper.serving`` with its ports, its spool and its log."""

    def __init__(self, version: Path, home: Path, /, **settings: object) -> None:
        self.spool = home / "spool"
        self.log = home / "log"
        self.http_port, self.grpc_port, self.metrics_port = free_ports(3)
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.infer_url = f"{self.url}/v2/models/{sample_version.MODEL}/infer"
        self.environment = {
            **os.environ,
            "WATCHKEEPER_MODEL": sample_version.MODEL,
            "WATCHKEEPER_VERSION": str(sample_version.VERSION),
            "WATCHKEEPER_MODEL_FOLDER": str(version),
            "WATCHKEEPER_SPOOL": str(self.spool),
            "WATCHKEEPER_SIGNING_KEY": KEY,
            "WATCHKEEPER_FEEDBACK_TOKEN": TOKEN,
            "WATCHKEEPER_HTTP_PORT": str(self.http_port),
            "WATCHKEEPER_GRPC_PORT": str(self.grpc_port),
            "WATCHKEEPER_METRICS_PORT": str(self.metrics_port),
            "WATCHKEEPER_DRAIN_SECONDS": "0.5",
            "WATCHKEEPER_BODY_SECONDS": "1",
            **MLSERVER_VARIABLES,
            **{f"WATCHKEEPER_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> "Server":
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "watchkeeper.serving"],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self

    def start(self) -> "Server":
        self.spawn()
        wait_for(self.is_ready, what=f"ready ({self.log})")
        return self

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            return HTTP.get(f"{self.url}/v2/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def kill(self, number: int = signal.SIGKILL) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PROCESS_SECONDS)

    def records(self) -> list[Record]:
        """All records of the spool, in order."""
        records: list[Record] = []
        for number in layout.segments(self.spool):
            content = layout.written_part(layout.segment_path(self.spool, number).read_bytes())
            for line in content.split(b"\n")[:-1]:
                records += decode_line(line)
        return records

    def last(self) -> Record:
        """The newest record of the spool."""
        for number in reversed(layout.segments(self.spool)):
            content = layout.written_part(layout.segment_path(self.spool, number).read_bytes())
            *whole, _ = content[-200_000:].split(b"\n")
            if whole:
                return decode_line(whole[-1])[-1]
        raise AssertionError(f"{self.spool} has no record")

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        text = HTTP.get(f"http://127.0.0.1:{self.metrics_port}/metrics").text
        found = [line for line in text.splitlines() if line.startswith(name + "{")]
        return sum(float(line.rpartition(" ")[2]) for line in found)


@pytest.fixture(scope="session")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_version.create_version(tmp_path_factory.mktemp("versions") / "7")


@pytest.fixture(scope="session")
def server(version: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(version, tmp_path_factory.mktemp("server")).start()
    yield running
    assert running.kill(signal.SIGTERM) == 0
    assert "Traceback" not in running.log.read_text()


Starter = Callable[..., Server]


@pytest.fixture
def start(version: Path, tmp_path: Path) -> Iterator[Starter]:
    """Create servers with settings for one test."""
    started: list[Server] = []

    def starter(**settings: object) -> Server:
        home = tmp_path / f"server-{len(started)}"
        home.mkdir()
        started.append(Server(version, home, **settings))
        return started[-1]

    yield starter
    for each in started:
        if each.process is not None:
            each.kill()
