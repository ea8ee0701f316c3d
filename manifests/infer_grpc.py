"""Sends a request over gRPC: python infer_grpc.py <gateway>:<port> <model> <request.json>.

Needs numpy and tritonclient: pip install numpy "tritonclient[grpc]"
"""

import json
import sys

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import triton_to_np_dtype

gateway, model, path = sys.argv[1:]
with open(path, encoding="utf-8") as file:
    request = json.load(file)
inputs = []
for column in request["inputs"]:
    tensor = triton.InferInput(column["name"], column["shape"], column["datatype"])
    values = np.array(column["data"], dtype=triton_to_np_dtype(column["datatype"]))
    tensor.set_data_from_numpy(values)
    inputs.append(tensor)
# All models share one port. The host selects the model.
options = [("grpc.default_authority", model)]
with triton.InferenceServerClient(gateway, channel_args=options) as client:
    result = client.infer(model, inputs, parameters=request["parameters"])
for output in result.get_response().outputs:
    print(output.name, result.as_numpy(output.name).tolist())
