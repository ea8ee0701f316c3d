"""Check of `helm test`: the version in production answers its own example over HTTP and gRPC."""

import json
import math
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import grpc
from mlserver.grpc import converters
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.types import InferenceRequest, InferenceResponse

from watchkeeper.core.names import model_uri, serving_name
from watchkeeper.core.version import read_example, read_manifest
from watchkeeper.registry import Registry


def _check(model):
    version = Registry().aliases(model).get("production")
    if version is None:
        sys.exit(f"{model}: no version is in production yet; wait for the first training run")
    folder = Path(tempfile.mkdtemp()) / model
    fetch = [sys.executable, "-m", "watchkeeper.serving.initialize", model_uri(model, version)]
    subprocess.run([*fetch, folder], check=True)
    example, signature = read_example(folder), read_manifest(folder).signature
    inputs = [
        {
            "name": column.name,
            "datatype": column.datatype,
            "shape": [len(example.inputs[column.name])],
            "data": example.inputs[column.name],
        }
        for column in signature.inputs
    ]
    host = f"{serving_name(model, version)}-predictor"
    for protocol, infer in (("HTTP", _infer_http), ("gRPC", _infer_grpc)):
        outputs = infer(host, model, {"inputs": inputs})
        for output in outputs:
            expected = example.outputs[output["name"]]
            if not _same_values(output["data"], expected):
                sys.exit(
                    f"{model} version {version}, {protocol}: {output} differs from the example's "
                    f"output {expected}"
                )
        print(f"{model} version {version} answers over {protocol}: {outputs[0]['data'][:3]} ...")


def _gateway_token():
    """Return the header that the gateway adds to each request."""
    token = Path("/run/secrets/gateway/credential")
    return {"x-watchkeeper-gateway": token.read_text()} if token.exists() else {}


def _infer_http(host, model, body):
    request = urllib.request.Request(
        f"http://{host}/v2/models/{model}/infer",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", **_gateway_token()},
    )
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        return json.load(response)["outputs"]


def _infer_grpc(host, model, body):
    typed = InferenceRequest.model_validate(body)
    for column in typed.inputs:
        if column.datatype == "BYTES":
            column.data.root = [value.encode() for value in column.data.root]
    request = converters.ModelInferRequestConverter.from_types(
        typed, model_name=model, model_version=None
    )
    with grpc.insecure_channel(f"{host}:9000") as channel:
        metadata = tuple(_gateway_token().items())
        answer = GRPCInferenceServiceStub(channel).ModelInfer(
            request, timeout=30, metadata=metadata
        )
    response: InferenceResponse = converters.ModelInferResponseConverter.to_types(answer)
    return [{"name": output.name, "data": list(output.data)} for output in response.outputs]


def _same_values(actual, expected):
    def same(one, other):
        if isinstance(other, float):
            return math.isclose(one, other, abs_tol=1e-5)
        return (one.decode() if isinstance(one, bytes) else one) == other

    return len(actual) == len(expected) and all(map(same, actual, expected))


for name in sys.argv[1:]:
    _check(name)
