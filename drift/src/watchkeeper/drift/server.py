"""The sidecar's HTTP server: /metrics, /drift, /healthz and /readyz."""

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
from watchkeeper.drift.state import State

SILENT_SECONDS = 120.0  # longer than any time-out of the ledger
STOP_SECONDS = 5.0


def application(state: State) -> Starlette:
    """Make the application; it answers from memory only."""
    registry = CollectorRegistry()
    registry.register(SidecarCollector(state))

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def drift(_: Request) -> Response:
        return Response(msgspec.json.encode(state.view), media_type="application/json")

    async def healthz(_: Request) -> Response:
        silent = time.monotonic() - state.alive
        if silent > SILENT_SECONDS:
            return PlainTextResponse(f"no sign of life for {silent:.0f} s\n", 503)
        return PlainTextResponse("live\n")

    async def readyz(_: Request) -> Response:
        if state.trouble:
            return PlainTextResponse(f"{state.trouble}\n", 503)
        return PlainTextResponse("ready\n")

    handlers = {"/metrics": metrics, "/drift": drift, "/healthz": healthz, "/readyz": readyz}
    return Starlette(routes=[Route(path, handler) for path, handler in handlers.items()])


class Server:
    """Serves in a thread of its own, bounded in connections and time."""

    def __init__(self, state: State, host: str, port: int) -> None:
        """Bind the port at once.

        Raises:
            OSError: the port cannot be had; the message names it.
        """
        try:
            self._socket = socket.create_server((host, port), backlog=32)
        except OSError as error:
            raise OSError(
                error.errno, f"{host}:{port} (WATCHKEEPER_PORT): {error.strerror}"
            ) from error
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            application(state),
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
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what is being answered and stop."""
        self._server.should_exit = True
        self._thread.join(STOP_SECONDS)
        self._socket.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])
