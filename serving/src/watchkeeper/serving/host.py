"""The process: MLServer with our way of a request, a start that proves itself and a gentle end."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from fastapi.exceptions import RequestValidationError
from grpc import aio
from mlserver import MLServer, Settings
from mlserver.grpc import GRPCServer
from mlserver.grpc.model_repository import ModelRepositoryServicer
from mlserver.grpc.model_repository_pb2_grpc import add_ModelRepositoryServiceServicer_to_server
from mlserver.metrics.server import MetricsServer
from mlserver.registry import MultiModelRegistry
from mlserver.rest import RESTServer
from prometheus_client import REGISTRY
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from watchkeeper.serving.dataplane import DataPlane
from watchkeeper.serving.feedback import Feedback
from watchkeeper.serving.grpc import Servicer, add_to_server
from watchkeeper.serving.http import Front
from watchkeeper.serving.metrics import Metrics
from watchkeeper.serving.runtime import OneModel, ReadOnlyRepository, Runtime, model_settings
from watchkeeper.serving.settings import ServingSettings
from watchkeeper.serving.spool import Spool

logger = logging.getLogger(__name__)

# Longer than the hour for which Envoy keeps an idle connection: the end that reuses a connection
# must be the one that closes it, or requests are lost in between.
_KEEP_ALIVE = 3900
# How long the first request of a connection may take to arrive while the process is ending.
_LAST_REQUESTS = 0.3


class PortError(RuntimeError):
    """A port cannot be listened on."""


def mlserver_settings(serving: ServingSettings) -> Settings:
    """Set in code whatever would change the answers, so that no stray variable or file does."""
    return Settings(
        debug=False,
        parallel_workers=0,
        gzip_enabled=False,
        cors_settings=None,
        cache_enabled=False,
        kafka_enabled=False,
        tracing_server=None,
        logging_settings=None,
        load_models_at_startup=False,
        model_repository_implementation=None,
        model_repository_root="",
        server_name="watchkeeper",
        extensions=["binary_tensor_data"],
        root_path="",
        host=serving.host,
        http_port=serving.http_port,
        grpc_port=serving.grpc_port,
        metrics_port=serving.metrics_port,
        metrics_endpoint="/metrics",
        grpc_max_message_length=serving.body_bytes,
    )


class Host(MLServer):  # type: ignore[misc]
    """MLServer, serving one version until it is told to end."""

    def __init__(self, serving: ServingSettings, plane: DataPlane) -> None:
        self._serving = serving
        self._plane = plane
        self._model = model_settings(serving)
        self._end = asyncio.Event()
        super().__init__(mlserver_settings(serving))

    async def run(self) -> int:
        """Serve; returns the exit code when everything that was accepted is finished.

        Raises:
            PortError: a port is taken.
            BrokenVersionError: the version cannot be loaded or fails its example.
        """
        parts = (self._metrics_server, self._rest_server, self._grpc_server)
        for part in parts:
            part.bind()
        servers = [asyncio.create_task(part.start()) for part in parts]
        load = asyncio.create_task(self._model_registry.load(self._model))
        end = asyncio.create_task(self._end.wait())
        try:
            await asyncio.wait((load, end, *servers), return_when=asyncio.FIRST_COMPLETED)
            if load.done():
                load.result()
                logger.info("ready: %s %s", self._serving.model, self._serving.version)
                await asyncio.wait((end, *servers), return_when=asyncio.FIRST_COMPLETED)
            if self._end.is_set():
                await self._drain()
        finally:
            load.cancel()
            await self.stop()
            await asyncio.gather(*servers)
            self._plane.spool.close()
        return 0 if self._end.is_set() else 1

    async def stop(self, sig: int | None = None) -> None:  # noqa: ARG002
        """Refuse new requests, finish the accepted ones, and only then end the metrics."""
        await asyncio.gather(self._rest_server.stop(), self._grpc_server.stop())
        await self._metrics_server.stop()

    async def _drain(self) -> None:
        """Let the gateway see that this process is going, while it still answers."""
        logger.info("draining for %g s", self._serving.drain_seconds)
        self._plane.drain()
        await asyncio.sleep(self._serving.drain_seconds)

    def _add_signal_handlers(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            loop.add_signal_handler(number, self._end.set)

    def _configure_logger(self) -> None:
        """Leave the logging as the process has set it up."""

    def _create_model_registry(self) -> MultiModelRegistry:
        return MultiModelRegistry(
            model_initialiser=lambda settings: Runtime(settings, self._serving, self._plane)
        )

    def _create_servers(self) -> None:
        self._kafka_server = None
        self._model_repository = OneModel(self._model)
        repository = ReadOnlyRepository(self._model_repository, self._model_registry)
        # Without the metrics endpoint there are no interceptors and no middleware: they cost
        # more than the model, and count by labels that clients choose.
        plain = self._settings.model_copy(update={"metrics_endpoint": None})
        behind = (plain, self._data_plane, repository)
        self._rest_server = Rest(self._serving, self._plane, *behind)
        self._grpc_server = Grpc(self._serving, self._plane, *behind)
        self._metrics_server = MetricsPage(self._settings)


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


class _HttpPart:
    """What the two HTTP servers of MLServer have in common here."""

    _settings: Settings
    _socket: socket.socket
    _server: _Uvicorn
    port: int
    seconds: int

    def application(self) -> Any:
        """Return the ASGI application."""
        raise NotImplementedError

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
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
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

    def __init__(self, serving: ServingSettings, plane: DataPlane, *behind: Any) -> None:
        RESTServer.__init__(self, *behind)
        self._app.add_exception_handler(HTTPException, _as_error)
        self._app.add_exception_handler(RequestValidationError, _as_error)
        self._serving, self._plane = serving, plane
        self.port, self.seconds = serving.http_port, round(serving.stop_seconds)

    def application(self) -> Any:
        """Put our front before MLServer's application."""
        feedback = Feedback(self._plane, self._serving.feedback_token)
        limit, seconds = self._serving.body_bytes, self._serving.body_seconds
        return Front(self._app, self._plane, feedback, limit, seconds)


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

    def __init__(self, serving: ServingSettings, plane: DataPlane, *behind: Any) -> None:
        super().__init__(*behind)
        self._serving, self._plane = serving, plane

    def bind(self) -> None:
        """Listen; without SO_REUSEPORT, by which a second process would share the port unseen."""
        options = [*self._get_options(), ("grpc.so_reuseport", 0)]
        self._server = aio.server(options=options)
        add_to_server(
            Servicer(
                self._data_plane,
                self._model_repository_handlers,
                self._plane,
                self._serving.body_bytes,
            ),
            self._server,
        )
        add_ModelRepositoryServiceServicer_to_server(
            ModelRepositoryServicer(self._model_repository_handlers), self._server
        )
        address = f"{self._settings.host}:{self._settings.grpc_port}"
        try:
            self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise PortError(f"{address}: {error}") from error

    async def start(self) -> None:
        """Serve until :meth:`stop`."""
        await self._server.start()
        await self._server.wait_for_termination()

    async def stop(self, sig: int | None = None) -> None:  # noqa: ARG002
        """Refuse new calls, finish the accepted ones."""
        await self._server.stop(grace=self._serving.stop_seconds)


async def serve(settings: ServingSettings) -> int:
    """Serve one version until SIGTERM; see :meth:`Host.run`."""
    spool = Spool(settings.spool, settings.model, settings.version, settings.spool_bytes)
    metrics = Metrics(settings.model, settings.version, REGISTRY)
    key = settings.signing_key.encode()
    plane = DataPlane(settings.model, settings.version, key, spool, metrics)
    return await Host(settings, plane).run()
