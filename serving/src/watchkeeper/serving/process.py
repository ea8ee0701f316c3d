"""The serving process: MLServer with our request path.

Self-check at startup: the process is ready once the version has answered its own example. Graceful
shutdown: after SIGTERM the process first reports that it is not ready, then it finishes accepted
requests.
"""

import asyncio
import contextlib
import gc
import logging
import signal
from importlib import metadata

from mlserver import MLServer, Settings
from mlserver.registry import MultiModelRegistry
from prometheus_client import REGISTRY

from watchkeeper.serving.admission import Admission, AdmissionController, ShedCounter
from watchkeeper.serving.certificate import Certificate
from watchkeeper.serving.dataplane import create_data_plane
from watchkeeper.serving.feedback import FeedbackHandler
from watchkeeper.serving.gateway_tokens import GatewayTokens
from watchkeeper.serving.metrics import Metrics
from watchkeeper.serving.runtime import Runtime, model_settings
from watchkeeper.serving.servers import GrpcServer, HttpServer, MetricsHttpServer
from watchkeeper.serving.settings import ServingSettings
from watchkeeper.serving.spool import SpoolWriter

_REGULAR_SECONDS = 1.0

logger = logging.getLogger(__name__)


async def serve(settings: ServingSettings) -> int:
    """Serve one version until SIGTERM; see :meth:`ServingProcess.run`."""
    spool = SpoolWriter(settings.spool, settings.model, settings.version, settings.spool_bytes)
    metrics = Metrics(settings.model, settings.version, REGISTRY)
    return await ServingProcess(settings, spool, metrics).run()


class ServingProcess(MLServer):  # type: ignore[misc]
    """MLServer, serving one version until SIGTERM."""

    def __init__(self, settings: ServingSettings, spool: SpoolWriter, metrics: Metrics) -> None:
        model, version = settings.model, settings.version
        signing_key = settings.signing_key.encode()
        self._serving = settings
        self._spool = spool
        self._metrics = metrics
        self._plane = create_data_plane(
            model,
            version,
            signing_key,
            spool,
            metrics,
            synthetic_clients=frozenset(settings.synthetic_clients),
        )
        self._feedback = FeedbackHandler(
            model,
            signing_key,
            settings.feedback_token,
            spool,
            metrics,
            truths=lambda: self._plane.truths,
        )
        self._admission = Admission(
            AdmissionController(settings.queue_seconds),
            ShedCounter(model, version, spool, metrics),
        )
        self._tokens = GatewayTokens(settings.gateway_tokens)
        self._certificate: Certificate | None = None
        if settings.certificate:
            self._certificate = Certificate(settings.certificate)
            metrics.show_certificate(self._certificate.validity)
        self._metrics = metrics
        self._model = model_settings(settings)
        self._terminated = asyncio.Event()
        super().__init__(mlserver_settings(settings))

    async def run(self) -> int:
        """Serve, and return the exit code when accepted requests are finished.

        Raises:
            PortError: A port is in use.
            BrokenVersionError: The version cannot be loaded or fails its example.
        """
        parts = (self._metrics_server, self._rest_server, self._grpc_server)
        for part in parts:
            part.bind()
        servers = [asyncio.create_task(part.start()) for part in parts]
        regular = asyncio.create_task(self._work_regularly())
        load = asyncio.create_task(self._model_registry.load(self._model))
        terminated = asyncio.create_task(self._terminated.wait())
        try:
            await asyncio.wait(
                (load, terminated, regular, *servers), return_when=asyncio.FIRST_COMPLETED
            )
            if load.done():
                load.result()
                _freeze_loaded_objects()
                logger.info("ready: %s %s", self._serving.model, self._serving.version)
                await asyncio.wait(
                    (terminated, regular, *servers), return_when=asyncio.FIRST_COMPLETED
                )
            if self._terminated.is_set():
                await self._drain()
        finally:
            load.cancel()
            regular.cancel()
            await self.stop()
            await asyncio.gather(*servers)
            if not regular.cancelled():
                regular.result()  # raises the error that ended it
            self._admission.shed.report()
            self._spool.close()
        return 0 if self._terminated.is_set() else 1

    async def stop(self, sig: int | None = None) -> None:  # noqa: ARG002
        """Refuse new requests, finish the accepted ones, then stop the metrics server."""
        await asyncio.gather(self._rest_server.stop(), self._grpc_server.stop())
        await self._metrics_server.stop()

    async def _work_regularly(self) -> None:
        while True:
            await asyncio.sleep(_REGULAR_SECONDS)
            self._admission.shed.report()
            await asyncio.to_thread(self._tokens.read_again)
            if self._certificate is not None and await asyncio.to_thread(
                self._certificate.is_replaced
            ):
                with contextlib.suppress(OSError):  # replaced again meanwhile
                    self._certificate.use()
                    self._metrics.show_certificate(self._certificate.validity)

    async def _drain(self) -> None:
        """Report that the process is not ready, while it still answers, so that clients leave."""
        logger.info("draining for %g s", self._serving.drain_seconds)
        self._plane.drain()
        await asyncio.sleep(self._serving.drain_seconds)

    # The following methods replace methods of MLServer.

    def _add_signal_handlers(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            loop.add_signal_handler(number, self._terminated.set)

    def _configure_logger(self) -> None:
        """Keep the logging that the process has set up."""

    def _create_model_registry(self) -> MultiModelRegistry:
        return MultiModelRegistry(
            model_initialiser=lambda settings: Runtime(settings, self._serving, self._plane)
        )

    def _create_servers(self) -> None:
        self._kafka_server = None
        # Without a metrics endpoint, MLServer adds no interceptors and no middleware. They cost
        # more than the model, and their labels contain what clients send.
        settings = self._settings.model_copy(update={"metrics_endpoint": None})
        repository = None  # the rollout controller decides what serves
        mlserver_arguments = (settings, self._data_plane, repository)
        self._rest_server = HttpServer(
            self._serving,
            self._plane,
            self._feedback,
            self._admission,
            self._metrics,
            *mlserver_arguments,
            tokens=self._tokens,
            certificate=self._certificate,
        )
        self._grpc_server = GrpcServer(
            self._serving,
            self._plane,
            self._admission,
            self._metrics,
            *mlserver_arguments,
            tokens=self._tokens,
            certificate=self._certificate,
        )
        self._metrics_server = MetricsHttpServer(self._settings)


def mlserver_settings(serving: ServingSettings) -> Settings:
    """Return MLServer's settings.

    Everything that could change answers is set here, so that MLServer's environment variables and
    settings files have no effect.
    """
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
        server_version=metadata.version("watchkeeper-serving"),
        extensions=["binary_tensor_data"],
        root_path="",
        host=serving.host,
        http_port=serving.http_port,
        grpc_port=serving.grpc_port,
        metrics_port=serving.metrics_port,
        metrics_endpoint="/metrics",
        grpc_max_message_length=serving.body_bytes,
    )


def _freeze_loaded_objects() -> None:
    """Exclude everything loaded so far from garbage collection: it stays until the end."""
    gc.collect()
    gc.freeze()
