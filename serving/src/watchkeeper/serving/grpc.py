"""gRPC: MLServer's service with a ModelInfer, readiness and metadata of our own.

ModelInfer takes the bytes of its message and gives bytes back: a message that cannot be parsed
is then refused and recorded like any other bad request.
"""

import asyncio
import json
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError
from grpc import aio
from mlserver.errors import MLServerError
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.servicers import InferenceServicer
from mlserver.handlers import DataPlane as MLServerDataPlane
from mlserver.handlers import ModelRepositoryHandlers

from watchkeeper.serving.backlog import METHOD, Backlog
from watchkeeper.serving.contract import check_subject, refuse_unserved
from watchkeeper.serving.dataplane import Answer, Call, DataPlane, Request
from watchkeeper.serving.overload import MESSAGE, Admission
from watchkeeper.serving.refusals import (
    ELSEWHERE,
    NotFound,
    NotServed,
    Refused,
    TooLarge,
    TooSlow,
)
from watchkeeper.serving.rounds import Gathering
from watchkeeper.serving.runtime import ONE_VERSION
from watchkeeper.serving.tensors import Contents, RawContents, Tensor, TypedContents, to_bytes

SERVICE = "inference.GRPCInferenceService"
Context = Any  # aio.ServicerContext; its types are published nowhere
_CANCELLED_WITHIN = 1.0  # seconds from the end of a stream to the news that its call has ended
_LATER = (("retry-after", "1"), ("grpc-retry-pushback-ms", "1000"))
_FIELDS = {"FP64": "fp64_contents", "INT64": "int64_contents", "BYTES": "bytes_contents"}


class Servicer(InferenceServicer):  # type: ignore[misc]
    """Translates between tensors of gRPC and the data plane."""

    def __init__(
        self,
        behind: MLServerDataPlane,
        repository: ModelRepositoryHandlers,
        plane: DataPlane,
        admission: Admission,
        backlog: Backlog,
        *,
        limit: int,
        seconds: float,
    ) -> None:
        super().__init__(behind, repository)
        self._plane = plane
        self._admission = admission
        self._backlog = backlog
        self._limit = limit
        self._seconds = seconds
        self._gathering = Gathering()

    async def ServerReady(self, request: Any, context: Context) -> Any:  # noqa: N802, ARG002
        """Ready means: loaded, proven and staying."""
        return pb.ServerReadyResponse(ready=self._plane.ready)

    async def ModelReady(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Tell whether the model is ready; another one is NOT_FOUND."""
        plane = self._plane
        if request.name != plane.model or request.version not in ("", str(plane.version)):
            await _abort(context, _not_served(request.name))
        return pb.ModelReadyResponse(ready=plane.ready)

    async def ModelMetadata(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Tell the signature; parameters become text, lists JSON, as gRPC has no other."""
        try:
            metadata = await self._data_plane.model_metadata(request.name, request.version or None)
        except MLServerError:
            await _abort(context, _not_served(request.name))
        return _metadata(metadata.model_dump())

    async def ModelInfer(self, stream: Any, context: Context) -> bytes:  # noqa: N802, ARG002
        """Answer the bytes of a ModelInferRequest with those of a ModelInferResponse."""
        if self._backlog.full() or self._admission.gate.full():
            self._admission.turned_away.add("grpc")
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, MESSAGE, _LATER)
        metadata: Any = context.invocation_metadata() or ()
        call = self._plane.call("grpc", dict(metadata))
        try:
            request = await self._read(call, context)
            await self._gathering.join()
            message = self._parse(call, request)
            answer = await self._plane.infer(
                call, message.model_name, message.model_version, lambda: decode(message)
            )
            self._backlog.answered(self._plane.cost)
        except Refused as refused:
            await _abort(context, refused)
        return encode(answer, message, self._plane)

    async def RepositoryIndex(self, request: Any, context: Context) -> Any:  # noqa: N802
        """List the one model; MLServer writes the name of its enumeration into the state."""
        response = await super().RepositoryIndex(request, context)
        for model in response.models:
            model.state = model.state.removeprefix("State.")
        return response

    async def RepositoryModelLoad(self, request: Any, context: Context) -> Any:  # noqa: N802, ARG002
        """Refuse: what serves is decided by the rollout alone."""
        await _abort(context, Refused(ONE_VERSION))

    async def RepositoryModelUnload(self, request: Any, context: Context) -> Any:  # noqa: N802, ARG002
        """Refuse, as above."""
        await _abort(context, Refused(ONE_VERSION))

    async def ModelStreamInfer(self, stream: Any, context: Context) -> Any:  # noqa: N802, ARG002
        """Refuse: streams are for models that answer in parts."""
        refused = NotServed("streams are not served, ModelInfer is")
        metadata: Any = context.invocation_metadata() or ()
        self._plane.refuse(self._plane.call("grpc", dict(metadata)), refused)
        await _abort(context, refused)
        yield b""

    async def _read(self, call: Call, context: Context) -> bytes:
        try:
            async with asyncio.timeout(self._seconds):
                request = await context.read()
        except TimeoutError as error:
            refused = TooSlow(f"no message came within {self._seconds:g} seconds")
            self._plane.refuse(call, refused)
            raise refused from error
        if request is aio.EOF:
            await self._no_message(call)
        message: bytes = request
        return message

    async def _no_message(self, call: Call) -> NoReturn:
        """Record a call without a message; where gRPC has ended it already, it cancels us now."""
        refused = Refused("no message came")
        try:
            await asyncio.sleep(_CANCELLED_WITHIN)
        except asyncio.CancelledError:
            refused = TooLarge(
                f"no message came: it was over the limit of {self._limit} bytes, or the client "
                "went away"
            )
            raise
        finally:
            self._plane.refuse(call, refused)
        raise refused

    def _parse(self, call: Call, request: bytes) -> Any:
        try:
            return pb.ModelInferRequest.FromString(request)
        except DecodeError as error:
            refused = Refused(f"the message is no ModelInferRequest: {error}")
            self._plane.refuse(call, refused)
            raise refused from error


def _not_served(model: str) -> NotFound:
    return NotFound(f"model {model!r} is not served here; {ELSEWHERE}")


async def _abort(context: Context, refused: Refused) -> NoReturn:
    await context.abort(grpc.StatusCode[refused.grpc], str(refused))
    raise AssertionError("abort has raised")


def decode(message: Any) -> Request:
    """Read a ModelInferRequest.

    Raises:
        Refused: raw contents and inputs do not belong together.
    """
    raw = message.raw_input_contents
    inputs = message.inputs
    if raw and len(raw) != len(inputs):
        raise Refused(
            f"{len(raw)} raw contents for {len(inputs)} inputs; there must be one for each"
        )
    tensors: list[Tensor] = []
    for output in message.outputs:
        refuse_unserved(output.parameters, f"output {output.name!r}")
    for number, given in enumerate(inputs):
        refuse_unserved(given.parameters, f"column {given.name!r}")
        contents: Contents
        if not raw:
            contents = TypedContents(given.contents)
        elif given.contents.ByteSize():
            raise Refused(
                f"column {given.name!r}: has raw contents and typed ones; one is too much"
            )
        else:
            contents = RawContents(raw[number])
        tensors.append(Tensor(given.name, given.datatype, given.shape, contents))
    subject = ""
    if "subject" in message.parameters:
        given = message.parameters["subject"]
        subject = check_subject(getattr(given, given.WhichOneof("parameter_choice") or "", None))
    return Request(tensors, [output.name for output in message.outputs], subject)


def encode(answer: Answer, message: Any, plane: DataPlane) -> bytes:
    """Write a ModelInferResponse, with raw contents if the request had them."""
    version = str(plane.version)
    response = pb.ModelInferResponse(
        model_name=plane.model, model_version=version, id=message.id or answer.prediction_id
    )
    response.parameters["version"].string_param = version
    response.parameters["prediction_id"].string_param = answer.prediction_id
    if answer.flags:
        response.parameters["flags"].string_param = "; ".join(answer.flags)
    raw = bool(message.raw_input_contents)
    for output in answer.outputs:
        tensor = response.outputs.add(
            name=output.name, datatype=output.datatype, shape=(answer.rows,)
        )
        if raw:
            response.raw_output_contents.append(
                to_bytes(answer.columns[output.name], output.datatype)
            )
        else:
            listed: list[Any] = answer.lists[output.name]
            if output.datatype == "BYTES":
                listed = [text.encode() for text in listed]
            getattr(tensor.contents, _FIELDS[output.datatype]).extend(listed)
    encoded: bytes = response.SerializeToString()
    return encoded


def _metadata(described: dict[str, Any]) -> Any:
    response = pb.ModelMetadataResponse(
        name=described["name"], versions=described["versions"], platform=described["platform"]
    )
    _put(response.parameters, described.get("parameters"))
    for name in ("inputs", "outputs"):
        for tensor in described[name]:
            added = getattr(response, name).add(
                name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"]
            )
            _put(added.parameters, tensor.get("parameters"))
    return response


def _put(parameters: Any, values: dict[str, Any] | None) -> None:
    for name, value in (values or {}).items():
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, list) else str(value)
        parameters[name].string_param = text


class Methods(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The methods of all services, ModelInfer by the bytes of its messages."""

    def __init__(self, backlog: Backlog) -> None:
        self._methods: dict[str, Any] = {
            METHOD: grpc.unary_unary_rpc_method_handler(backlog.arrived)
        }

    def service(self, details: Any) -> Any:
        """Find the method of a call that begins; None if there is none."""
        return self._methods.get(details.method)

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Take the methods of a service, as generated code hands them over."""
        self._methods |= {f"/{service}/{name}": handler for name, handler in handlers.items()}
        infer = handlers.get("ModelInfer")
        if infer is not None:
            # As a stream of one message, which is the same on the wire: the servicer then learns
            # of messages that gRPC itself has refused for their size.
            by_bytes = grpc.stream_unary_rpc_method_handler(infer.unary_unary)
            self._methods[f"/{service}/ModelInfer"] = by_bytes

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Drop them: they are the same methods once more."""
