"""The process: MLServer with our way of a request, a start that proves itself and a gentle end."""

import asyncio
import gc
import logging
import signal

from mlserver import MLServer, Settings
from mlserver.registry import MultiModelRegistry
from prometheus_client import REGISTRY

from watchkeeper.serving.dataplane import DataPlane
from watchkeeper.serving.metrics import Metrics
from watchkeeper.serving.overload import Admission, Gate, TurnedAway
from watchkeeper.serving.runtime import OneModel, ReadOnlyRepository, Runtime, model_settings
from watchkeeper.serving.servers import Grpc, MetricsPage, Rest
from watchkeeper.serving.settings import ServingSettings
from watchkeeper.serving.spool import Spool

_REPORT_SECONDS = 1.0

logger = logging.getLogger(__name__)


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
        self._admission = Admission(
            Gate(serving.queue_seconds),
            TurnedAway(serving.model, serving.version, plane.spool, plane.metrics),
        )
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
        report = asyncio.create_task(self._report())
        load = asyncio.create_task(self._model_registry.load(self._model))
        end = asyncio.create_task(self._end.wait())
        try:
            await asyncio.wait((load, end, report, *servers), return_when=asyncio.FIRST_COMPLETED)
            if load.done():
                load.result()
                _settle()
                logger.info("ready: %s %s", self._serving.model, self._serving.version)
                await asyncio.wait((end, report, *servers), return_when=asyncio.FIRST_COMPLETED)
            if self._end.is_set():
                await self._drain()
        finally:
            load.cancel()
            report.cancel()
            await self.stop()
            await asyncio.gather(*servers)
            if not report.cancelled():
                report.result()  # it never ends by itself
            self._admission.turned_away.report()
            self._plane.spool.close()
        return 0 if self._end.is_set() else 1

    async def stop(self, sig: int | None = None) -> None:  # noqa: ARG002
        """Refuse new requests, finish the accepted ones, and only then end the metrics."""
        await asyncio.gather(self._rest_server.stop(), self._grpc_server.stop())
        await self._metrics_server.stop()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_SECONDS)
            self._admission.turned_away.report()

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
        self._rest_server = Rest(self._serving, self._plane, self._admission, *behind)
        self._grpc_server = Grpc(self._serving, self._plane, self._admission, *behind)
        self._metrics_server = MetricsPage(self._settings)


def _settle() -> None:
    """Take what is loaded by now out of the garbage collector's rounds: it stays to the end."""
    gc.collect()
    gc.freeze()


async def serve(settings: ServingSettings) -> int:
    """Serve one version until SIGTERM; see :meth:`Host.run`."""
    spool = Spool(settings.spool, settings.model, settings.version, settings.spool_bytes)
    metrics = Metrics(settings.model, settings.version, REGISTRY)
    key = settings.signing_key.encode()
    plane = DataPlane(settings.model, settings.version, key, spool, metrics)
    return await Host(settings, plane).run()
