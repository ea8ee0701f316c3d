"""Asks a server everything that the KServe SDK can ask, with its defaults; answers in JSON."""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import kserve
import numpy as np
from kserve.inference_client import RESTConfig


def inputs(columns: dict[str, tuple[str, list[Any]]], how: str) -> list[kserve.InferInput]:
    """``how``: lists as the SDK's samples have them, or arrays, in binary or not."""
    made = []
    for name, (datatype, values) in columns.items():
        if how == "lists":
            made.append(kserve.InferInput(name, [len(values)], datatype, values))
            continue
        array = np.array(values, dtype=object if datatype == "BYTES" else None)
        tensor = kserve.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array, binary_data=how == "binary")
        made.append(tensor)
    return made


def outputs(response: kserve.InferResponse) -> dict[str, list[Any]]:
    found = {}
    for output in response.outputs:
        values = output.as_numpy().tolist()
        found[output.name] = [v.decode() if isinstance(v, bytes) else v for v in values]
    return found


def parameters(response: kserve.InferResponse) -> dict[str, str]:
    """Of gRPC the SDK hands out the messages themselves."""
    return {
        name: getattr(value, "string_param", value) for name, value in response.parameters.items()
    }


async def error(call: Callable[[], Any]) -> str:
    try:
        await call()
    except Exception as raised:  # noqa: BLE001  (whatever the SDK makes of it)
        return str(raised)
    return ""


async def ask(http: str, grpc: str, model: str, columns: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {}

    def request(how: str, leave: str = "") -> kserve.InferRequest:
        given = {name: column for name, column in columns.items() if name != leave}
        return kserve.InferRequest(model, inputs(given, how), parameters={"subject": f"by {how}"})

    rest = kserve.InferenceRESTClient(RESTConfig(protocol="v2"))
    told["http"] = {
        "live": await rest.is_server_live(http),
        "ready": await rest.is_server_ready(http),
        "model ready": await rest.is_model_ready(http, model),
        "another ready": await rest.is_model_ready(http, "another"),
    }
    raw = kserve.InferenceGRPCClient(grpc)
    told["grpc"] = {
        "live": await raw.is_server_live(),
        "ready": await raw.is_server_ready(),
        "model ready": await raw.is_model_ready(model),
    }
    for how in ("lists", "arrays", "binary"):
        for protocol in ("http", "grpc"):
            asked = request(how)
            response = (
                await rest.infer(http, asked, model_name=model)
                if protocol == "http"
                else await raw.infer(asked)
            )
            told[protocol][how] = [outputs(response), parameters(response)]
    wrong = request("binary", leave=next(iter(columns)))
    told["http"]["error"] = await error(lambda: rest.infer(http, wrong, model_name=model))
    wrong = request("binary", leave=next(iter(columns)))
    told["grpc"]["error"] = await error(lambda: raw.infer(wrong))
    await rest.close()
    await raw.close()
    return told


if __name__ == "__main__":
    print(json.dumps(asyncio.run(ask(*sys.argv[1:4], json.loads(sys.argv[4])))))
