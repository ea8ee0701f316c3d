"""MLServer's three servers with our applications: HTTP, gRPC and the metrics page.

Each server has ``bind``, ``start`` and ``stop``. A stop finishes accepted requests and resets no
connection. With a certificate, HTTP and gRPC have a second port each, with TLS.
"""

import abc
import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Iterator
from functools import partial
from typing import Any

import uvicorn
from fastapi.exceptions import RequestValidationError
from grpc import aio
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha.reflection_pb2_grpc import add_ServerReflectionServicer_to_server
from mlserver import Settings
from mlserver.grpc import GRPCServer
from mlserver.grpc.dataplane_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from mlserver.metrics.server import MetricsServer
from mlserver.rest import RESTServer
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from watchkeeper.serving.admission import Admission
from watchkeeper.serving.certificate import Certificate
from watchkeeper.serving.connection import Connection
from watchkeeper.serving.dataplane import DataPlane
from watchkeeper.serving.errors import RequestError
from watchkeeper.serving.feedback import FeedbackHandler
from watchkeeper.serving.gateway_tokens import GatewayTokens
from watchkeeper.serving.grpc import MethodHandlers, Servicer
from watchkeeper.serving.grpc_health import Health
from watchkeeper.serving.grpc_queue import GrpcQueueProbe
from watchkeeper.serving.grpc_reflection import create_reflection
from watchkeeper.serving.http import V2Middleware
from watchkeeper.serving.metrics import Metrics
from watchkeeper.serving.request import read_call
from watchkeeper.serving.settings import ServingSettings

# Longer than the hour for which Envoy keeps an idle connection by default. The side that reuses a
# connection must also be the side that closes it; otherwise requests are lost in between.
_KEEP_ALIVE_SECONDS = 3900
# How long the first request of a connection may take to arrive while the process stops.
_LAST_REQUESTS_SECONDS = 0.3
_LAST_HANDSHAKE_SECONDS = 1.0  # the same for the handshake of such a connection
_METRICS_CONNECTIONS = 64
_MAX_STREAMS = 512  # open in one gRPC connection; a client queues further calls itself
_UNLIMITED = 2**30

logger = logging.getLogger(__name__)


class PortError(RuntimeError):
    """The server cannot listen on a port."""


class _UvicornServer(uvicorn.Server):
    """A server without signal handlers; the process has its own."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept the connections that are already established, then close idle connections."""
        (listener,) = sockets or []
        listener.setblocking(False)
        accepted = []
        with contextlib.suppress(BlockingIOError):
            while True:
                accepted.append(listener.accept()[0])
        # One that breaks, or does not speak TLS, must not keep the others from their answers.
        await asyncio.gather(*map(self._connect, accepted), return_exceptions=True)
        for server in self.servers:
            server.close()
        listener.close()
        await asyncio.sleep(_LAST_REQUESTS_SECONDS)
        await super().shutdown()

    async def _connect(self, connection: socket.socket) -> None:
        await asyncio.get_running_loop().connect_accepted_socket(
            self._create_protocol,
            connection,
            ssl=self.config.ssl,
            ssl_handshake_timeout=_LAST_HANDSHAKE_SECONDS if self.config.ssl else None,
        )

    def _create_protocol(self) -> asyncio.Protocol:
        create: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = create(self.config, self.server_state, self.lifespan.state)
        return protocol

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing."""
        yield


class _HttpServerBase(abc.ABC):
    """What the HTTP server and the metrics server have in common."""

    _settings: Settings
    _listeners: list[tuple[_UvicornServer, socket.socket]]
    port: int
    stop_seconds: int
    tls: tuple[int, ssl.SSLContext] | None = None  # a second port

    @abc.abstractmethod
    def application(self) -> Any:
        """Return the ASGI application."""

    @abc.abstractmethod
    def create_connection(self, *arguments: Any, **named: Any) -> Connection:
        """Create the protocol of one connection."""

    def bind(self) -> None:
        """Bind the ports, so that a port in use stops the process before anything else starts.

        Raises:
            PortError: A port is in use or not allowed.
        """
        application = self.application()
        self._listeners = [
            (self._create_server(application, context), self._bind(port))
            for port, context in ((self.port, None), *([self.tls] if self.tls else []))
        ]

    def _bind(self, port: int) -> socket.socket:
        host = self._settings.host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        bound = socket.socket(family)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
        except OSError as error:
            raise PortError(f"{host}:{port}: {error.strerror}") from error
        return bound

    def _create_server(self, application: Any, context: ssl.SSLContext | None) -> _UvicornServer:
        config = uvicorn.Config(
            application,
            http=self.create_connection,  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=self.stop_seconds,
        )
        config.load()
        config.ssl = context
        return _UvicornServer(config)

    async def start(self) -> None:
        """Serve until :meth:`stop`, and return when accepted requests are finished."""
        await asyncio.gather(*(server.serve([bound]) for server, bound in self._listeners))

    async def stop(self, sig: int | None = None) -> None:  # noqa: ARG002
        """Make :meth:`start` return."""
        for server, _ in self._listeners:
            server.should_exit = True


class HttpServer(_HttpServerBase, RESTServer):  # type: ignore[misc]
    """MLServer's HTTP server behind our middleware."""

    def __init__(
        self,
        serving: ServingSettings,
        plane: DataPlane,
        feedback: FeedbackHandler,
        admission: Admission,
        metrics: Metrics,
        *mlserver_arguments: Any,
        tokens: GatewayTokens,
        certificate: Certificate | None,
    ) -> None:
        RESTServer.__init__(self, *mlserver_arguments)
        self._app.router.redirect_slashes = False
        self._app.add_exception_handler(HTTPException, _error_response)
        self._app.add_exception_handler(RequestValidationError, _error_response)
        self._serving = serving
        self._plane = plane
        self._feedback = feedback
        self._admission = admission
        self._metrics = metrics
        self._tokens = tokens
        self.port, self.stop_seconds = serving.http_port, round(serving.stop_seconds)
        if certificate is not None:
            self.tls = (serving.https_port, certificate.context)

    def application(self) -> Any:
        """Return our middleware before MLServer's application."""
        return V2Middleware(
            self._app,
            self._plane,
            self._feedback,
            self._admission,
            self._metrics,
            tokens=self._tokens,
            only_tls=self.tls is not None,
            max_body_bytes=self._serving.body_bytes,
            body_seconds=self._serving.body_seconds,
        )

    def create_connection(self, *arguments: Any, **named: Any) -> Connection:
        """Create the protocol of one connection, with admission control."""
        return Connection(
            *arguments,
            on_malformed=self._record_malformed,
            on_shed=partial(self._admission.shed.count, "http"),
            controller=self._admission.controller,
            limit=self._serving.connections,
            **named,
        )

    def _record_malformed(self, reason: str) -> None:
        self._plane.refuse(read_call("http", {}), RequestError(reason))


class MetricsHttpServer(_HttpServerBase, MetricsServer):  # type: ignore[misc]
    """MLServer's metrics server."""

    def __init__(self, settings: Settings) -> None:
        MetricsServer.__init__(self, settings)
        self.port, self.stop_seconds = settings.metrics_port, 1

    def application(self) -> Any:
        """Return MLServer's application."""
        return self._app

    def create_connection(self, *arguments: Any, **named: Any) -> Connection:
        """Create the protocol of one connection, without admission control."""
        return Connection(
            *arguments,
            on_malformed=partial(logger.warning, "malformed HTTP on the metrics port: %s"),
            on_shed=partial(logger.warning, "too many connections to the metrics port"),
            controller=None,
            limit=_METRICS_CONNECTIONS,
            **named,
        )


class GrpcServer(GRPCServer):  # type: ignore[misc]
    """MLServer's gRPC server with our servicer."""

    def __init__(
        self,
        serving: ServingSettings,
        plane: DataPlane,
        admission: Admission,
        metrics: Metrics,
        *mlserver_arguments: Any,
        tokens: GatewayTokens,
        certificate: Certificate | None,
    ) -> None:
        super().__init__(*mlserver_arguments)
        self._metrics, self._tokens = metrics, tokens
        self._serving, self._plane, self._admission = serving, plane, admission
        self._queue_probe = GrpcQueueProbe(serving.queue_seconds)
        self._certificate = certificate
        # With TLS, this port is for the process itself, which measures its queue.
        host = self._settings.host if certificate is None else "127.0.0.1"
        self._address = f"{host}:{self._settings.grpc_port}"

    def bind(self) -> None:
        """Bind the port. Without SO_REUSEPORT, a second process cannot share it unnoticed.

        Raises:
            PortError: The port is in use or not allowed.
        """
        options = [
            *self._get_options(),
            ("grpc.so_reuseport", 0),
            ("grpc.max_allowed_incoming_connections", self._serving.connections),
            ("grpc.max_concurrent_streams", _MAX_STREAMS),
            # Beyond this limit gRPC cancels calls, and clients retry cancelled calls.
            ("grpc.server.max_pending_requests", _UNLIMITED),
            ("grpc.server.max_pending_requests_hard_limit", _UNLIMITED),
        ]
        self._server = aio.server(options=options)
        handlers = MethodHandlers(self._queue_probe, self._tokens, self._metrics)
        servicer = Servicer(
            self._data_plane,
            self._plane,
            self._admission,
            self._queue_probe,
            max_message_bytes=self._serving.body_bytes,
            message_seconds=self._serving.body_seconds,
        )
        add_GRPCInferenceServiceServicer_to_server(servicer, handlers)
        add_HealthServicer_to_server(Health(self._plane), handlers)
        add_ServerReflectionServicer_to_server(create_reflection(handlers.services), handlers)
        self._server.add_generic_rpc_handlers((handlers,))
        address = self._address
        try:
            self._server.add_insecure_port(address)
            if self._certificate is not None:
                address = f"{self._settings.host}:{self._serving.grpcs_port}"
                self._server.add_secure_port(address, self._certificate.grpc_credentials())
        except RuntimeError as error:
            raise PortError(f"{address}: {error}") from error

    async def start(self) -> None:
        """Serve until :meth:`stop`."""
        await self._server.start()
        self._queue_probe.start(self._address)
        await self._server.wait_for_termination()

    async def stop(self, sig: int | None = None) -> None:  # noqa: ARG002
        """Refuse new calls and finish the accepted ones."""
        await self._queue_probe.stop()
        await self._server.stop(grace=self._serving.stop_seconds)


async def _error_response(request: Any, error: Exception) -> JSONResponse:
    """Give FastAPI's errors the body that all errors of the V2 protocol have."""
    status, text = 400, f"{request.url.path}: {error}"
    if isinstance(error, HTTPException):
        status, text = error.status_code, f"{request.url.path}: {error.detail}"
    return JSONResponse({"error": text}, status)
