"""The servers that are measured, each alone on one core: the others are stopped meanwhile."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from pathlib import Path

import httpx
import msgspec

from watchkeeper.bench import model
from watchkeeper.bench.switched import OFF, ON

SERVER_CORE, LOAD_CORE = "0", "1"
_START_SECONDS = 90
_SPOOL_BYTES = 8 * 1024**3


class Server:
    """A process on the servers' core, with a port for each protocol."""

    def __init__(self, name: str, command: list[str], variables: dict[str, str], folder: Path):
        self.name = name
        self._first: list[signal.Signals] = []
        self.log = folder / f"{name}.log"
        self.http, self.grpc = int(variables["HTTP"]), int(variables["GRPC"])
        self._ready = f"http://127.0.0.1:{self.http}{variables['READY']}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["taskset", "-c", SERVER_CORE, *command],
                env={**os.environ, **variables},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if httpx.get(self._ready, timeout=5).is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise RuntimeError(f"{self.name} did not start; its log is {self.log}")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let it run; before and after it is stopped, so that others have the core alone."""
        self.process.send_signal(signal.SIGCONT)
        for each in self._first:
            self.process.send_signal(each)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGSTOP)

    def after(self, name: str, switch: signal.Signals) -> "Server":
        """Return the same process under another name, which is sent a signal before it runs."""
        other = copy(self)
        other.name, other._first = name, [switch]
        return other

    def memory(self) -> float:
        """Return the most memory that it has had, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) / 1024

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait(30)


@contextmanager
def started(folder: Path) -> Iterator[dict[str, Server]]:
    """Start all servers of the model in ``folder``, and end them again."""
    with ExitStack() as stack:
        found: dict[str, Server] = {}
        for name, command, variables in (
            _watchkeeper(folder, "watchkeeper", "watchkeeper.serving"),
            _watchkeeper(folder, "switched", "watchkeeper.bench.switched"),
            _mlserver(folder, "mlserver-sklearn", "mlserver_sklearn.SKLearnModel"),
            _mlserver(folder, "constant", "watchkeeper.bench.constant_peer.Constant"),
            _mlserver(
                folder, "quiet-constant", "watchkeeper.bench.constant_peer.Constant", debug=False
            ),
            _fastapi(folder),
        ):
            found[name] = Server(name, command, variables, folder)
            stack.callback(found[name].end)
        for server in found.values():
            server.wait()
            server.process.send_signal(signal.SIGSTOP)
        switched = found.pop("switched")
        found["with-records"] = switched.after("with-records", ON)
        found["without-records"] = switched.after("without-records", OFF)
        yield found


def _ports(number: int) -> list[str]:
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


Start = tuple[str, list[str], dict[str, str]]


def _watchkeeper(folder: Path, name: str, module: str) -> Start:
    http, grpc, metrics = _ports(3)
    settings = {
        "MODEL": model.MODEL,
        "VERSION": str(model.VERSION),
        "MODEL_FOLDER": str(folder / "version"),
        "SPOOL": str(folder / f"spool-{name}"),
        "SPOOL_BYTES": str(_SPOOL_BYTES),
        "SIGNING_KEY": "benchmark",
        "FEEDBACK_TOKEN": "benchmark",
        "HTTP_PORT": http,
        "GRPC_PORT": grpc,
        "METRICS_PORT": metrics,
    }
    variables = {f"WATCHKEEPER_{key}": value for key, value in settings.items()}
    variables |= {"HTTP": http, "GRPC": grpc, "READY": "/v2/health/ready"}
    return name, [sys.executable, "-m", module], variables


def _mlserver(folder: Path, name: str, implementation: str, **changed: object) -> Start:
    """Describe MLServer as it comes, which is how KServe's runtime for it runs it."""
    http, grpc, metrics = _ports(3)
    home = folder / name
    home.mkdir()
    # Its default of one worker process neither starts with this uvloop nor is faster here.
    settings: dict[str, object] = {"parallel_workers": 0, "host": "127.0.0.1"}
    settings |= {"http_port": http, "grpc_port": grpc, "metrics_port": metrics, **changed}
    parameters = {"uri": str(folder / model.PEER_FILE), "version": str(model.VERSION)}
    described = {"name": model.MODEL, "implementation": implementation, "parameters": parameters}
    (home / "settings.json").write_bytes(msgspec.json.encode(settings))
    (home / "model-settings.json").write_bytes(msgspec.json.encode(described))
    command = [str(Path(sys.executable).with_name("mlserver")), "start", str(home)]
    return name, command, {"HTTP": http, "GRPC": grpc, "READY": "/v2/health/ready"}


def _fastapi(folder: Path) -> Start:
    (http,) = _ports(1)
    app = "watchkeeper.bench.fastapi_peer:app"
    command = [sys.executable, "-m", "uvicorn", app, "--port", http, "--no-access-log"]
    variables = {"HTTP": http, "GRPC": "0", "READY": "/docs", "BENCH_FOLDER": str(folder)}
    return "fastapi", command, variables
