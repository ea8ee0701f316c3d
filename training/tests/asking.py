"""Asks a server with a client that nobody here wrote; runs in serving's environment.

``asking.py HTTP_PORT GRPC_PORT MODEL`` reads {"datatypes": {…}, "columns": {…}} from its input and
writes {"http": outputs, "grpc": outputs}.
"""

import json
import sys
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http


def asked(module: Any, port: str, model: str, given: dict[str, Any]) -> dict[str, Any]:
    client = module.InferenceServerClient(f"127.0.0.1:{port}")
    inputs = []
    for name, values in given["columns"].items():
        kind = given["datatypes"][name]
        tensor = module.InferInput(name, [len(values)], kind)
        tensor.set_data_from_numpy(np.array(values, {"INT64": "int64", "FP64": "float64"}[kind]))
        inputs.append(tensor)
    result = client.infer(model, inputs)
    response = result.get_response()
    answered = {
        name: result.as_numpy(name).tolist()
        for name in (
            [output["name"] for output in response["outputs"]]
            if isinstance(response, dict)
            else [output.name for output in response.outputs]
        )
    }
    client.close()
    return {n: [x.decode() if isinstance(x, bytes) else x for x in v] for n, v in answered.items()}


if __name__ == "__main__":
    http, grpc, name = sys.argv[1:]
    request = json.load(sys.stdin)
    answers = {
        "http": asked(tritonclient.http, http, name, request),
        "grpc": asked(tritonclient.grpc, grpc, name, request),
    }
    json.dump(answers, sys.stdout)
