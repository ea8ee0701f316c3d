"""The servers that are measured. Each runs alone on one core, while the others are stopped."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from pathlib import Path

import httpx
import msgspec
from trustme import CA

from watchkeeper.bench.model import PEER_FILE, VERSION, Model
from watchkeeper.bench.switchable import OFF, ON

SERVER_CORE, LOAD_CORE = "0", "1"
_START_SECONDS = 300
_SPOOL_BYTES = 8 * 1024**3


class Server:
    """A process on the servers' core, with a port for each protocol.

    With an ``authority``, its ports speak TLS.
    """

    def __init__(self, name: str, command: list[str], variables: dict[str, str], folder: Path):
        self.name = name
        self._signals: list[signal.Signals] = []
        self.log = folder / f"{name}.log"
        self.http, self.grpc = int(variables["HTTP"]), int(variables["GRPC"])
        self.authority = Path(variables["AUTHORITY"]) if "AUTHORITY" in variables else None
        self.url, self.grpc_url = (
            f"{'https' if self.authority else 'http'}://127.0.0.1:{port}"
            for port in (self.http, self.grpc)
        )
        self._ready = (
            f"http://127.0.0.1:{variables.get('READY_PORT', self.http)}{variables['READY']}"
        )
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["taskset", "-c", SERVER_CORE, *command],
                env={**os.environ, **variables},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_until_ready(self) -> None:
        """Wait until the server answers.

        Raises:
            RuntimeError: The process exited, or did not answer in time.
        """
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
        """Continue the process, and stop it again at the end of the block."""
        self.process.send_signal(signal.SIGCONT)
        for each in self._signals:
            self.process.send_signal(each)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGSTOP)

    def with_signal(self, name: str, number: signal.Signals) -> "Server":
        """Return this process under another name; it gets the signal each time it continues."""
        other = copy(self)
        other.name, other._signals = name, [number]
        return other

    def peak_memory(self) -> float:
        """Return the peak of the resident memory, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) / 1024

    def kill(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.wait(30)


@contextmanager
def start_servers(
    model: Model, folder: Path, names: Collection[str]
) -> Iterator[dict[str, Server]]:
    """Start servers of the model in ``folder``, and kill them at the end of the block.

    Args:
        model: The model.
        folder: Its files, see :func:`watchkeeper.bench.model.create`.
        names: Which servers, out of :data:`SERVERS`.
    """
    with ExitStack() as stack:
        found: dict[str, Server] = {}
        for name in names:
            command, variables = SERVERS[name](model, folder, name)
            found[name] = Server(name, command, variables, folder)
            stack.callback(found[name].kill)
        for server in found.values():
            server.wait_until_ready()
            server.process.send_signal(signal.SIGSTOP)
        if switchable := found.pop("switchable", None):
            found["with-records"] = switchable.with_signal("with-records", ON)
            found["without-records"] = switchable.with_signal("without-records", OFF)
        yield found


def _free_ports(number: int) -> list[str]:
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


# Command and environment variables.
Command = tuple[list[str], dict[str, str]]


def _watchkeeper(model: Model, folder: Path, name: str) -> Command:
    http, grpc, metrics = _free_ports(3)
    settings = {
        "MODEL": model.name,
        "VERSION": str(VERSION),
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
    module = "watchkeeper.bench.switchable" if name == "switchable" else "watchkeeper.serving"
    return [sys.executable, "-m", module], variables


def _watchkeeper_with_tls(model: Model, folder: Path, name: str) -> Command:
    command, variables = _watchkeeper(model, folder, name)
    https, grpcs = _free_ports(2)
    certificate, authority = folder / f"certificate-{name}", CA()
    certificate.mkdir()
    made = authority.issue_cert("127.0.0.1")
    made.private_key_pem.write_to_path(str(certificate / "tls.key"))
    made.cert_chain_pems[0].write_to_path(str(certificate / "tls.crt"))
    authority.cert_pem.write_to_path(str(certificate / "ca.crt"))
    settings = {"CERTIFICATE": str(certificate), "HTTPS_PORT": https, "GRPCS_PORT": grpcs}
    variables |= {f"WATCHKEEPER_{key}": value for key, value in settings.items()}
    variables |= {"READY_PORT": variables["HTTP"], "HTTP": https, "GRPC": grpcs}
    return command, {**variables, "AUTHORITY": str(certificate / "ca.crt")}


def _mlserver(implementation: str, **changed: object) -> Callable[[Model, Path, str], Command]:
    """Configure MLServer with its defaults, as KServe's runtime does."""

    def command(model: Model, folder: Path, name: str) -> Command:
        http, grpc, metrics = _free_ports(3)
        home = folder / name
        home.mkdir()
        # The default of one worker process does not start with this uvloop, and is not faster.
        settings: dict[str, object] = {"parallel_workers": 0, "host": "127.0.0.1"}
        settings |= {"http_port": http, "grpc_port": grpc, "metrics_port": metrics, **changed}
        parameters = {"uri": str(folder / PEER_FILE), "version": str(VERSION)}
        model_settings = {
            "name": model.name,
            "implementation": implementation,
            "parameters": parameters,
        }
        (home / "settings.json").write_bytes(msgspec.json.encode(settings))
        (home / "model-settings.json").write_bytes(msgspec.json.encode(model_settings))
        program = str(Path(sys.executable).with_name("mlserver"))
        variables = {"HTTP": http, "GRPC": grpc, "READY": "/v2/health/ready"}
        return [program, "start", str(home)], variables

    return command


def _fastapi(model: Model, folder: Path, _: str) -> Command:
    (http,) = _free_ports(1)
    app = "watchkeeper.bench.fastapi_peer:app"
    command = [sys.executable, "-m", "uvicorn", app, "--port", http, "--no-access-log"]
    variables = {"HTTP": http, "GRPC": "0", "READY": "/docs", "BENCH_FOLDER": str(folder)}
    return command, {**variables, "BENCH_METHOD": model.head.method}


_CONSTANT = "watchkeeper.bench.constant_peer.Constant"
SERVERS: dict[str, Callable[[Model, Path, str], Command]] = {
    "watchkeeper": _watchkeeper,
    "switchable": _watchkeeper,
    "with-tls": _watchkeeper_with_tls,
    # It serves every estimator with the methods of scikit-learn, those of XGBoost and LightGBM too.
    "mlserver-sklearn": _mlserver("mlserver_sklearn.SKLearnModel"),
    "constant": _mlserver(_CONSTANT),
    "quiet-constant": _mlserver(_CONSTANT, debug=False),
    "fastapi": _fastapi,
}
