"""Messages of the V2 protocol over gRPC: ModelInferRequest and ModelInferResponse."""

from typing import Any

import msgspec
from mlserver.grpc import dataplane_pb2 as pb

from watchkeeper.serving.contract import refuse_unsupported
from watchkeeper.serving.errors import RequestError
from watchkeeper.serving.request import Answer, Codec, Request
from watchkeeper.serving.tensors import Contents, RawContents, Tensor, TypedContents, to_bytes

_FIELDS = {"FP64": "fp64_contents", "INT64": "int64_contents", "BYTES": "bytes_contents"}


class GrpcCodec(Codec[Any, bytes]):
    """Decodes ModelInferRequests and encodes answers of one version."""

    def __init__(self, model: str, version: int) -> None:
        self._model, self._version = model, str(version)

    def decode(self, message: Any) -> Request:
        """Read a parsed ModelInferRequest.

        Raises:
            RequestError: Inputs and raw contents do not belong together.
        """
        inputs, raw_contents = message.inputs, message.raw_input_contents
        if raw_contents and len(raw_contents) != len(inputs):
            raise RequestError(
                f"{len(raw_contents)} raw contents for {len(inputs)} inputs; "
                "there must be one for each"
            )
        for output in message.outputs:
            refuse_unsupported(output.parameters, f"output {output.name!r}")
        tensors: list[Tensor] = []
        for number, each in enumerate(inputs):
            refuse_unsupported(each.parameters, f"column {each.name!r}")
            contents: Contents
            if not raw_contents:
                contents = TypedContents(each.contents)
            elif each.contents.ByteSize():
                raise RequestError(
                    f"column {each.name!r}: has both raw contents and typed contents; "
                    "send one of them"
                )
            else:
                contents = RawContents(raw_contents[number])
            tensors.append(Tensor(each.name, each.datatype, each.shape, contents))
        return Request(
            tensors,
            [output.name for output in message.outputs],
            _parameter(message, "subject"),
            message.id,
            bool(raw_contents),
        )

    def encode(self, answer: Answer, request: Request) -> bytes:
        """Write a ModelInferResponse, with raw contents if the request had them."""
        response = pb.ModelInferResponse(
            model_name=self._model,
            model_version=self._version,
            id=request.id or answer.prediction_id,
        )
        response.parameters["version"].string_param = self._version
        response.parameters["prediction_id"].string_param = answer.prediction_id
        if answer.flags:
            response.parameters["flags"].string_param = "; ".join(answer.flags)
        for output in answer.outputs:
            tensor = response.outputs.add(
                name=output.name, datatype=output.datatype, shape=(answer.rows,)
            )
            if request.binary:
                response.raw_output_contents.append(
                    to_bytes(answer.columns[output.name], output.datatype)
                )
            else:
                values: list[Any] = answer.lists[output.name]
                if output.datatype == "BYTES":
                    values = [text.encode() for text in values]
                getattr(tensor.contents, _FIELDS[output.datatype]).extend(values)
        encoded: bytes = response.SerializeToString()
        return encoded


def _parameter(message: Any, name: str) -> object:
    """Return the value of a parameter, UNSET without the parameter, None without a value."""
    if name not in message.parameters:
        return msgspec.UNSET
    parameter = message.parameters[name]
    return getattr(parameter, parameter.WhichOneof("parameter_choice") or "", None)
