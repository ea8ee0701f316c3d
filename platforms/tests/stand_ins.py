"""Small stand-ins for the components of a local system.

Run as ``python stand_ins.py initialize|server|sidecar|training ...`` with the real variables.
"""

import json
import os
import signal
import sys
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

VERSION = os.environ.get("WATCHKEEPER_VERSION", "")
ENDED = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    # Send head and body in one write: the gateway cannot retry a request after it has forwarded the
    # head, if the server is killed before the body.
    wbufsize = 65536

    def do_GET(self) -> None:
        if self.path == "/v2/health/ready":
            return self.answer({})
        return self.answer({"page": self.path})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.endswith("/second-try") and self.headers["x-envoy-attempt-count"] == "1":
            print("first try of", self.headers["x-request-id"], flush=True)
            return self.answer({}, status=503)
        if self.path.endswith("/overloaded"):
            print("rejected", self.headers["x-request-id"], flush=True)
            return self.answer({}, status=503, overloaded=True)
        return self.answer({"headers": {k.lower(): v for k, v in self.headers.items()}})

    def answer(self, body: dict[str, Any], status: int = 200, overloaded: bool = False) -> None:
        content = json.dumps({"version": VERSION, "pid": os.getpid(), **body}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if overloaded:
            self.send_header("Retry-After", "1")
            self.send_header("x-envoy-ratelimited", "true")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


def listen(variable: str) -> None:
    server = Server(("127.0.0.1", int(os.environ[variable])), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def serve() -> None:
    import grpc  # noqa: PLC0415  (the other roles start faster without)

    assert (Path(os.environ["WATCHKEEPER_MODEL_FOLDER"]) / "uri").exists()
    if os.environ.get("STAND_IN_BREAKS_ON") == VERSION:
        sys.exit("its example was answered wrong")
    answer = grpc.unary_unary_rpc_method_handler(lambda _request, _context: VERSION.encode())

    def overloaded(_request: bytes, context: grpc.ServicerContext) -> bytes:
        attempt = dict(context.invocation_metadata())["x-envoy-attempt-count"]
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"attempt {attempt}")

    refuse = grpc.unary_unary_rpc_method_handler(overloaded)
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("stand.In", {"Infer": answer, "Overloaded": refuse})]
    )
    server.add_insecure_port(f"127.0.0.1:{os.environ['WATCHKEEPER_GRPC_PORT']}")
    server.start()
    listen("WATCHKEEPER_HTTP_PORT")
    ENDED.wait()


def train() -> None:
    """Append a line for each start to the file of the run; wait or fail as the parameters say."""
    arguments = sys.argv[2:]
    name = arguments[arguments.index("--run") + 1]
    parameters = dict(
        arguments[i + 1].split("=", 1) for i, a in enumerate(arguments) if a == "--set"
    )
    with (Path(os.environ["STAND_IN_FOLDER"]) / name).open("a") as file:
        file.write(json.dumps(arguments) + "\n")
    while "wait" in parameters and not Path(parameters["wait"]).exists() and not ENDED.is_set():
        time.sleep(0.02)
    sys.exit(int(parameters.get("exit", "0")))


if __name__ == "__main__":
    role = sys.argv[1]
    signal.signal(signal.SIGTERM, lambda *_: ENDED.set() if role != "training" else sys.exit(143))
    if role == "initialize":
        uri, folder = sys.argv[2:]
        away = Path(os.environ.get("STAND_IN_FOLDER", folder)) / f"away-{VERSION}"
        if away.exists():
            with away.open("a") as file:
                file.write(".")
            print("the registry is away")
            sys.exit(75)
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "uri").write_text(uri)
    elif role == "server":
        serve()
    elif role == "sidecar":
        listen("WATCHKEEPER_PORT")
        ENDED.wait()
        (Path(os.environ["WATCHKEEPER_SPOOL"]) / "sidecar-ended").touch()
    elif role == "training":
        train()
