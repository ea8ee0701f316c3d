"""The three servers of MLServer, with our front and servicer, and an end that resets nothing."""

import abc
import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import uvicorn
from fastapi.exceptions import RequestValidationError
from grpc import aio
from mlserver import Settings
from mlserver.grpc import GRPCServer
from mlserver.grpc.dataplane_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from mlserver.grpc.model_repository import ModelRepositoryServicer
from mlserver.grpc.model_repository_pb2_grpc import add_ModelRepositoryServiceServicer_to_server
from mlserver.metrics.server import MetricsServer
from mlserver.rest import RESTServer
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from watchkeeper.serving.backlog import Backlog
from watchkeeper.serving.connection import Connection
from watchkeeper.serving.dataplane import DataPlane
from watchkeeper.serving.feedback import Feedback
from watchkeeper.serving.grpc import Methods, Servicer
from watchkeeper.serving.http import Front
from watchkeeper.serving.overload import Admission
from watchkeeper.serving.refusals import Refused
from watchkeeper.serving.settings import ServingSettings

# Longer than the hour for which Envoy keeps an idle connection by default: the end that reuses a
# connection must be the one that closes it, or requests are lost in between.
_KEEP_ALIVE = 3900
# How long the first request of a connection may take to arrive while the process is ending.
_LAST_REQUESTS = 0.3


_PAGE_CONNECTIONS = 64
_STREAMS = 512  # that one gRPC connection may have open; its client queues the rest itself
_NEVER = 2**30

logger = logging.getLogger(__name__)


class PortError(RuntimeError):
    """A port cannot be listened on."""


class _Uvicorn(uvicorn.Server):
    """A server that leaves the signals to the process."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take in who has connected already, stop listening, and only then close what is idle."""
        (listener,) = sockets or []
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _ = listener.accept()
                await loop.connect_accepted_socket(self._protocol, connection)
        for server in self.servers:
            server.close()
        listener.close()
        await asyncio.sleep(_LAST_REQUESTS)
        await super().shutdown()

    def _protocol(self) -> asyncio.Protocol:
        protocol: Any = self.config.http_protocol_class
        made: asyncio.Protocol = protocol(self.config, self.server_state, self.lifespan.state)
        return made

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class _HttpPart(abc.ABC):
    """What the two HTTP servers of MLServer have in common here."""

    _settings: Settings
    _socket: socket.socket
    _server: _Uvicorn
    port: int
    seconds: int

    @abc.abstractmethod
    def application(self) -> Any:
        """Return the ASGI application."""

    def connection(self, *arguments: Any, **named: Any) -> Connection:
        """Make the protocol of one connection to a page that needs no gate."""
        return Connection(
            *arguments,
            malformed=partial(logger.warning, "malformed HTTP: %s"),
            shed=partial(logger.warning, "too many connections"),
            gate=None,
            limit=_PAGE_CONNECTIONS,
            **named,
        )

    def bind(self) -> None:
        """Listen, so that a taken port ends the process before anything else begins."""
        host = self._settings.host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, self.port))
        except OSError as error:
            raise PortError(f"{host}:{self.port}: {error.strerror}") from error
        config = uvicorn.Config(
            self.application(),
            http=self.connection,  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=self.seconds,
        )
        self._server = _Uvicorn(config)

    async def start(self) -> None:
        """Serve until :meth:`stop`."""
        await self._server.serve([self._socket])

    async def stop(self, sig: int | None = None) -> None:  # noqa: ARG002
        """Close, finish what was accepted, and return."""
        self._server.should_exit = True


async def _as_error(request: Any, error: Exception) -> JSONResponse:
    """Give what FastAPI refuses the body that all errors of the protocol have."""
    status, text = 400, f"{request.url.path}: {error}"
    if isinstance(error, HTTPException):
        status, text = error.status_code, f"{request.url.path}: {error.detail}"
    return JSONResponse({"error": text}, status)


class Rest(_HttpPart, RESTServer):  # type: ignore[misc]
    """MLServer's HTTP server with our front."""

    def __init__(
        self, serving: ServingSettings, plane: DataPlane, admission: Admission, *behind: Any
    ) -> None:
        RESTServer.__init__(self, *behind)
        self._app.router.redirect_slashes = False
        self._app.add_exception_handler(HTTPException, _as_error)
        self._app.add_exception_handler(RequestValidationError, _as_error)
        self._serving, self._plane, self._admission = serving, plane, admission
        self.port, self.seconds = serving.http_port, round(serving.stop_seconds)

    def connection(self, *arguments: Any, **named: Any) -> Connection:
        """Make the protocol of one connection."""
        return Connection(
            *arguments,
            malformed=self._malformed,
            shed=partial(self._admission.turned_away.add, "http"),
            gate=self._admission.gate,
            limit=self._serving.connections,
            **named,
        )

    def _malformed(self, why: str) -> None:
        """Record it like every other bad request."""
        self._plane.refuse(self._plane.call("http", {}), Refused(why))

    def application(self) -> Any:
        """Put our front before MLServer's application."""
        feedback = Feedback(self._plane, self._serving.feedback_token)
        limit, seconds = self._serving.body_bytes, self._serving.body_seconds
        return Front(
            self._app, self._plane, feedback, self._admission, limit=limit, seconds=seconds
        )


class MetricsPage(_HttpPart, MetricsServer):  # type: ignore[misc]
    """MLServer's metrics server."""

    def __init__(self, settings: Settings) -> None:
        MetricsServer.__init__(self, settings)
        self.port, self.seconds = settings.metrics_port, 1

    def application(self) -> Any:
        """Take MLServer's."""
        return self._app


class Grpc(GRPCServer):  # type: ignore[misc]
    """MLServer's gRPC server with our servicer."""

    def __init__(
        self, serving: ServingSettings, plane: DataPlane, admission: Admission, *behind: Any
    ) -> None:
        super().__init__(*behind)
        self._serving, self._plane, self._admission = serving, plane, admission
        self._backlog = Backlog(serving.queue_seconds)

    def bind(self) -> None:
        """Listen; without SO_REUSEPORT, by which a second process would share the port unseen."""
        options = [
            *self._get_options(),
            ("grpc.so_reuseport", 0),
            ("grpc.max_allowed_incoming_connections", self._serving.connections),
            ("grpc.max_concurrent_streams", _STREAMS),
            # Over this bound gRPC's core would cancel, and that asks for another try.
            ("grpc.server.max_pending_requests", _NEVER),
            ("grpc.server.max_pending_requests_hard_limit", _NEVER),
        ]
        self._server = aio.server(options=options)
        methods = Methods(self._backlog)
        servicer = Servicer(
            self._data_plane,
            self._model_repository_handlers,
            self._plane,
            self._admission,
            self._backlog,
            limit=self._serving.body_bytes,
            seconds=self._serving.body_seconds,
        )
        add_GRPCInferenceServiceServicer_to_server(servicer, methods)
        add_ModelRepositoryServiceServicer_to_server(
            ModelRepositoryServicer(self._model_repository_handlers), methods
        )
        self._server.add_generic_rpc_handlers((methods,))
        address = f"{self._settings.host}:{self._settings.grpc_port}"
        try:
            self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise PortError(f"{address}: {error}") from error

    async def start(self) -> None:
        """Serve until :meth:`stop`."""
        await self._server.start()
        self._backlog.open(f"{self._settings.host}:{self._settings.grpc_port}")
        await self._server.wait_for_termination()

    async def stop(self, sig: int | None = None) -> None:  # noqa: ARG002
        """Refuse new calls, finish the accepted ones."""
        await self._backlog.close()
        await self._server.stop(grace=self._serving.stop_seconds)
