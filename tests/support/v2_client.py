"""Send a request with Triton's client, which is independent of our code; see version_server.py.

``v2_client.py HTTP_PORT GRPC_PORT MODEL`` reads {"datatypes": {…}, "columns": {…}} from its
standard input and writes {"http": outputs, "grpc": outputs}. It runs in serving's environment.
"""

import json
import sys
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http


def infer(module: Any, port: str, model: str, request: dict[str, Any]) -> dict[str, Any]:
    client = module.InferenceServerClient(f"127.0.0.1:{port}")
    inputs = []
    for name, values in request["columns"].items():
        datatype = request["datatypes"][name]
        tensor = module.InferInput(name, [len(values)], datatype)
        tensor.set_data_from_numpy(
            np.array(values, {"INT64": "int64", "FP64": "float64"}[datatype])
        )
        inputs.append(tensor)
    result = client.infer(model, inputs)
    response = result.get_response()
    outputs = {
        name: result.as_numpy(name).tolist()
        for name in (
            [output["name"] for output in response["outputs"]]
            if isinstance(response, dict)
            else [output.name for output in response.outputs]
        )
    }
    client.close()
    return {n: [x.decode() if isinstance(x, bytes) else x for x in v] for n, v in outputs.items()}


if __name__ == "__main__":
    http, grpc, name = sys.argv[1:]
    request = json.load(sys.stdin)
    answers = {
        "http": infer(tritonclient.http, http, name, request),
        "grpc": infer(tritonclient.grpc, grpc, name, request),
    }
    json.dump(answers, sys.stdout)
