"""Clients of tritonclient, over HTTP and gRPC."""

import asyncio
from typing import Final

import tritonclient.grpc.aio as triton_grpc
import tritonclient.http.aio as triton_http

from watchkeeper.core.record import Protocol
from watchkeeper.demo.clients import (
    TIMEOUT,
    Reply,
    Row,
    Target,
    first_value,
    reply_of,
    tensors,
)


class TritonHttp:
    """tritonclient.http: binary tensors over HTTP by default."""

    name = "tritonclient-http"
    protocol: Protocol = "http"

    def __init__(self, target: Target) -> None:
        self._client = triton_http.InferenceServerClient(target.address)
        self._model = target.model
        self._columns = target.columns
        self._headers = {"Host": target.host, **target.headers(self.name)}

    async def infer(self, row: Row, subject: str) -> Reply:
        """Request a prediction for one row."""
        inputs = tensors(triton_http.InferInput, self._columns, row)
        result = await asyncio.wait_for(
            self._client.infer(
                self._model,
                inputs,
                headers=dict(self._headers),
                parameters={"subject": subject},
            ),
            TIMEOUT,
        )
        response = result.get_response()
        names = [output["name"] for output in response["outputs"]]
        outputs = {name: first_value(result.as_numpy(name)) for name in names}
        parameters = response["parameters"]
        return Reply(outputs, int(parameters["version"]), parameters["prediction_id"])

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


class TritonGrpc:
    """tritonclient.grpc: raw tensors, BYTES without a content type."""

    name = "tritonclient-grpc"
    protocol: Protocol = "grpc"

    def __init__(self, target: Target) -> None:
        self._client = triton_grpc.InferenceServerClient(
            target.address, channel_args=[("grpc.default_authority", target.host)]
        )
        self._model = target.model
        self._columns = target.columns
        self._headers = target.headers(self.name)

    async def infer(self, row: Row, subject: str) -> Reply:
        """Request a prediction for one row."""
        result = await self._client.infer(
            self._model,
            tensors(triton_grpc.InferInput, self._columns, row),
            headers=self._headers,
            client_timeout=TIMEOUT,
            parameters={"subject": subject},
        )
        response = result.get_response()
        names = [output.name for output in response.outputs]
        outputs = {name: first_value(result.as_numpy(name)) for name in names}
        return reply_of(outputs, response.parameters)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


CLIENTS: Final = (TritonHttp, TritonGrpc)
