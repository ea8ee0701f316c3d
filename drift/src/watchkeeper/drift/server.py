"""The HTTP server of the sidecar: /metrics, /drift, /healthz and /readyz."""

import socket
import threading
import time

import msgspec
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from watchkeeper.drift.metrics import SidecarCollector
from watchkeeper.drift.status import SidecarStatus, drift_as_json

STUCK_SECONDS = 120.0  # longer than every time limit of a call to the ledger
STOP_SECONDS = 5.0


def make_application(status: SidecarStatus) -> Starlette:
    """Return the ASGI application. It answers from memory and never waits."""
    registry = CollectorRegistry()
    registry.register(SidecarCollector(status))

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def drift(_: Request) -> Response:
        body = drift_as_json(status.drift) if status.drift else {}
        body["error"] = status.watch_error
        return Response(msgspec.json.encode(body), media_type="application/json")

    async def healthz(_: Request) -> Response:
        idle = time.monotonic() - status.last_active
        if idle > STUCK_SECONDS:
            return PlainTextResponse(f"shipping has done nothing for {idle:.0f} s\n", 503)
        return PlainTextResponse("live\n")

    async def readyz(_: Request) -> Response:
        if status.shipping_error:
            return PlainTextResponse(f"{status.shipping_error}\n", 503)
        return PlainTextResponse("ready\n")

    handlers = {"/metrics": metrics, "/drift": drift, "/healthz": healthz, "/readyz": readyz}
    return Starlette(routes=[Route(path, handler) for path, handler in handlers.items()])


class Server:
    """Serves in a thread of its own, with a limited number of connections."""

    def __init__(self, status: SidecarStatus, host: str, port: int) -> None:
        """Bind the port.

        Args:
            status: the status to serve.
            host: the address to bind.
            port: the port to bind; 0 selects a free port, see the attribute ``port``.

        Raises:
            OSError: the port cannot be bound. The message names the port and its variable.
        """
        try:
            self._socket = socket.create_server((host, port), backlog=32)
        except OSError as error:
            raise OSError(
                error.errno, f"{host}:{port} (WATCHKEEPER_PORT): {error.strerror}"
            ) from error
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            make_application(status),
            log_config=None,
            access_log=False,
            lifespan="off",
            limit_concurrency=32,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="server", daemon=True)

    def start(self) -> None:
        """Start to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Answer the requests that are in progress, then stop."""
        self._server.should_exit = True
        self._thread.join(STOP_SECONDS)
        self._socket.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])
