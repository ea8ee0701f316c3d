"""The gRPC service: MLServer's, with ModelInfer, readiness and metadata of our own.

ModelInfer receives and returns bytes, not messages. A message that cannot be parsed is therefore
refused and recorded like any other bad request.
"""

import asyncio
import json
from functools import partial
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError
from grpc import aio
from mlserver.errors import MLServerError
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.servicers import InferenceServicer
from mlserver.handlers import DataPlane as MLServerDataPlane

from watchkeeper.serving.admission import OVERLOADED, Admission
from watchkeeper.serving.dataplane import DataPlane
from watchkeeper.serving.errors import (
    MODEL_HINT,
    BodyTimeoutError,
    NotFoundError,
    RequestError,
    TooLargeError,
    UnimplementedError,
)
from watchkeeper.serving.gateway_tokens import GATEWAY_HEADER, OPEN_CALLS, GatewayTokens
from watchkeeper.serving.grpc_codec import GrpcCodec
from watchkeeper.serving.grpc_queue import PROBE_METHOD, GrpcQueueProbe
from watchkeeper.serving.metrics import Metrics
from watchkeeper.serving.micro_batching import GrpcBatchWindow
from watchkeeper.serving.request import Call, read_call

Context = Any  # aio.ServicerContext has no published types
_RETRY_LATER = (("retry-after", "1"), ("grpc-retry-pushback-ms", "1000"))
ONE_VERSION = "this process serves one version, from its start to its end; it has no repository"
_CANCEL_SECONDS = 1.0  # gRPC reports a cancelled call at most this long after its stream ended


class Servicer(InferenceServicer):  # type: ignore[misc]
    """The methods of GRPCInferenceService."""

    def __init__(
        self,
        mlserver_data_plane: MLServerDataPlane,
        plane: DataPlane,
        admission: Admission,
        queue_probe: GrpcQueueProbe,
        *,
        max_message_bytes: int,
        message_seconds: float,
    ) -> None:
        super().__init__(mlserver_data_plane, None)
        self._plane = plane
        self._codec = GrpcCodec(plane.model, plane.version)
        self._admission = admission
        self._queue_probe = queue_probe
        self._batch_window = GrpcBatchWindow()
        self._max_message_bytes = max_message_bytes
        self._message_seconds = message_seconds

    async def ModelInfer(self, stream: Any, context: Context) -> bytes:  # noqa: N802, ARG002
        """Answer the bytes of a ModelInferRequest with the bytes of a ModelInferResponse."""
        if self._queue_probe.is_queue_full() or self._admission.controller.is_full():
            self._admission.shed.count("grpc")
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, OVERLOADED, _RETRY_LATER)
        call = self._call(context)
        try:
            content = await self._read_message(call, context)
            await self._batch_window.wait()
            message = self._parse(call, content)
            answer = await self._plane.infer(
                call, message.model_name, message.model_version, self._codec, message
            )
        except RequestError as error:
            await _abort(context, error)
        self._queue_probe.observe_call(self._plane.seconds_per_request)
        return answer

    async def ModelStreamInfer(self, stream: Any, context: Context) -> Any:  # noqa: N802, ARG002
        """Refuse: streams are for models that answer in parts."""
        error = UnimplementedError("streams are not supported by this server, ModelInfer is")
        self._plane.refuse(self._call(context), error)
        await _abort(context, error)
        yield b""

    async def ServerReady(self, request: Any, context: Context) -> Any:  # noqa: N802, ARG002
        """Return whether the version is loaded and the process stays."""
        return pb.ServerReadyResponse(ready=self._plane.ready)

    async def ModelReady(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Return whether the model is ready; NOT_FOUND for another model."""
        plane = self._plane
        if request.name != plane.model or request.version not in ("", str(plane.version)):
            await _abort(context, _not_found(request.name))
        return pb.ModelReadyResponse(ready=plane.ready)

    async def ModelMetadata(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Return the signature. Parameters are text in gRPC; lists become JSON."""
        try:
            metadata = await self._data_plane.model_metadata(request.name, request.version or None)
        except MLServerError:
            await _abort(context, _not_found(request.name))
        return _metadata_response(metadata.model_dump())

    async def RepositoryIndex(self, request: Any, context: Context) -> Any:  # noqa: N802, ARG002
        """Refuse: the rollout controller decides what serves."""
        await _abort(context, UnimplementedError(ONE_VERSION))

    RepositoryModelLoad = RepositoryModelUnload = RepositoryIndex

    def _call(self, context: Context) -> Call:
        metadata: Any = context.invocation_metadata() or ()
        headers = dict(metadata)
        if len(headers) < len(metadata):  # a repeated name has a list of values, as in HTTP
            headers = {name: ", ".join(v for n, v in metadata if n == name) for name in headers}
        return read_call("grpc", headers, self._plane.synthetic_clients)

    async def _read_message(self, call: Call, context: Context) -> bytes:
        try:
            async with asyncio.timeout(self._message_seconds):
                content = await context.read()
        except TimeoutError as cause:
            error = BodyTimeoutError(f"no message came within {self._message_seconds:g} seconds")
            self._plane.refuse(call, error)
            raise error from cause
        if content is aio.EOF:
            await self._refuse_without_message(call)
        message: bytes = content
        return message

    async def _refuse_without_message(self, call: Call) -> NoReturn:
        """Record a call without a message. If gRPC itself ended the call, it cancels this task."""
        error = RequestError("no message came")
        try:
            await asyncio.sleep(_CANCEL_SECONDS)
        except asyncio.CancelledError:
            error = TooLargeError(
                f"no message came: it was over the limit of {self._max_message_bytes} bytes, or "
                "the client went away"
            )
            raise
        finally:
            self._plane.refuse(call, error)
        raise error

    def _parse(self, call: Call, content: bytes) -> Any:
        try:
            return pb.ModelInferRequest.FromString(content)
        except DecodeError as cause:
            error = RequestError(f"the message is not a ModelInferRequest: {cause}")
            self._plane.refuse(call, error)
            raise error from cause


class MethodHandlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The methods of all services. ModelInfer gets bytes instead of messages.

    Attributes:
        services: The names of the services for clients.
    """

    def __init__(
        self, queue_probe: GrpcQueueProbe, tokens: GatewayTokens, metrics: Metrics
    ) -> None:
        self._tokens = tokens
        self._metrics = metrics
        self._open = {*OPEN_CALLS, PROBE_METHOD}
        self.services: list[str] = []
        self._methods: dict[str, Any] = {
            PROBE_METHOD: grpc.unary_unary_rpc_method_handler(queue_probe.handle_probe)
        }

    def service(self, details: Any) -> Any:
        """Return the handler of a new call, or None."""
        if self._tokens.required and details.method not in self._open:
            try:
                self._tokens.check(_find_token(details.invocation_metadata))
            except RequestError as error:
                self._metrics.past_gateway.inc()
                return grpc.stream_unary_rpc_method_handler(partial(_refuse, error))
        return self._methods.get(details.method)

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Add the methods of a service. Generated code calls this."""
        self.services.append(service)
        self._methods |= {f"/{service}/{name}": handler for name, handler in handlers.items()}
        infer = handlers.get("ModelInfer")
        if infer is not None:
            # A stream of one message looks the same on the wire. The servicer also sees the calls
            # whose message gRPC itself refused for its size.
            by_bytes = grpc.stream_unary_rpc_method_handler(infer.unary_unary)
            self._methods[f"/{service}/ModelInfer"] = by_bytes

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Ignore them: they are the same methods again."""


def _find_token(metadata: Any) -> bytes:
    found = [value for name, value in metadata or () if name == GATEWAY_HEADER]
    return found[0].encode() if found else b""


async def _refuse(error: RequestError, stream: Any, context: Context) -> NoReturn:  # noqa: ARG001
    await _abort(context, error)


def _not_found(model: str) -> NotFoundError:
    return NotFoundError(f"model {model!r} is not served here; {MODEL_HINT}")


async def _abort(context: Context, error: RequestError) -> NoReturn:
    await context.abort(grpc.StatusCode[error.grpc], str(error))
    raise AssertionError("context.abort always raises")


def _metadata_response(metadata: dict[str, Any]) -> Any:
    response = pb.ModelMetadataResponse(
        name=metadata["name"], versions=metadata["versions"], platform=metadata["platform"]
    )
    _set_parameters(response.parameters, metadata.get("parameters"))
    for name in ("inputs", "outputs"):
        for tensor in metadata[name]:
            added = getattr(response, name).add(
                name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"]
            )
            _set_parameters(added.parameters, tensor.get("parameters"))
    return response


def _set_parameters(parameters: Any, values: dict[str, Any] | None) -> None:
    for name, value in (values or {}).items():
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, list) else str(value)
        parameters[name].string_param = text
