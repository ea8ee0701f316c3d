"""Calls a server with every method of the KServe SDK and its defaults; prints JSON."""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import kserve
import numpy as np
from kserve.inference_client import RESTConfig


def inputs(columns: dict[str, tuple[str, list[Any]]], how: str) -> list[kserve.InferInput]:
    """``how``: "lists" as in the SDK's samples, "arrays", or "binary"."""
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
    """For gRPC the SDK returns messages."""
    return {
        name: getattr(value, "string_param", value) for name, value in response.parameters.items()
    }


async def error(call: Callable[[], Any]) -> str:
    try:
        await call()
    except Exception as raised:  # noqa: BLE001 - the SDK has errors of many classes
        return str(raised)
    return ""


async def call_all(http: str, grpc: str, model: str, columns: dict[str, Any]) -> dict[str, Any]:
    results: dict[str, Any] = {}

    def request(how: str, without: str = "") -> kserve.InferRequest:
        given = {name: column for name, column in columns.items() if name != without}
        return kserve.InferRequest(model, inputs(given, how), parameters={"subject": f"by {how}"})

    rest = kserve.InferenceRESTClient(RESTConfig(protocol="v2"))
    results["http"] = {
        "live": await rest.is_server_live(http),
        "ready": await rest.is_server_ready(http),
        "model ready": await rest.is_model_ready(http, model),
        "another ready": await rest.is_model_ready(http, "another"),
    }
    raw = kserve.InferenceGRPCClient(grpc)
    results["grpc"] = {
        "live": await raw.is_server_live(),
        "ready": await raw.is_server_ready(),
        "model ready": await raw.is_model_ready(model),
    }
    for how in ("lists", "arrays", "binary"):
        for protocol in ("http", "grpc"):
            sent = request(how)
            response = (
                await rest.infer(http, sent, model_name=model)
                if protocol == "http"
                else await raw.infer(sent)
            )
            results[protocol][how] = [outputs(response), parameters(response)]
    wrong = request("binary", without=next(iter(columns)))
    results["http"]["error"] = await error(lambda: rest.infer(http, wrong, model_name=model))
    wrong = request("binary", without=next(iter(columns)))
    results["grpc"]["error"] = await error(lambda: raw.infer(wrong))
    await rest.close()
    await raw.close()
    return results


if __name__ == "__main__":
    print(json.dumps(asyncio.run(call_all(*sys.argv[1:4], json.loads(sys.argv[4])))))
