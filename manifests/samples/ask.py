"""Send one of the samples over gRPC: python ask.py <gateway>:<port> <model> <sample.json>.

Needs numpy and tritonclient: pip install numpy "tritonclient[grpc]"
"""

import json
import sys

import numpy as np
import tritonclient.grpc as triton

KINDS = {"BYTES": object, "FP64": np.float64, "INT64": np.int64}

gateway, model, sample = sys.argv[1:]
inputs = []
with open(sample, encoding="utf-8") as file:
    request = json.load(file)
for column in request["inputs"]:
    tensor = triton.InferInput(column["name"], column["shape"], column["datatype"])
    tensor.set_data_from_numpy(np.array(column["data"], dtype=KINDS[column["datatype"]]))
    inputs.append(tensor)
# several models have one port: a client says by the host which one it means
host = [("grpc.default_authority", model)]
with triton.InferenceServerClient(gateway, channel_args=host) as client:
    answer = client.infer(model, inputs, parameters=request["parameters"])
for output in answer.get_response().outputs:
    print(output.name, answer.as_numpy(output.name).tolist())
