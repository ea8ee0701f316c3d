"""Clients of the KServe SDK, over HTTP and gRPC."""

from typing import Final

import kserve
from kserve.inference_client import RESTConfig

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


class KServeHttp:
    """The KServe SDK's REST client: binary tensors over HTTP by default."""

    name = "kserve-rest"
    protocol: Protocol = "http"

    def __init__(self, target: Target) -> None:
        self._client = kserve.InferenceRESTClient(RESTConfig(protocol="v2", timeout=TIMEOUT))
        self._url = f"http://{target.address}"
        self._model = target.model
        self._columns = target.columns
        self._headers = {"Host": target.host, **target.headers(self.name)}

    async def infer(self, row: Row, subject: str) -> Reply:
        """Request a prediction for one row."""
        request = kserve.InferRequest(
            self._model,
            tensors(kserve.InferInput, self._columns, row),
            parameters={"subject": subject},
        )
        response = await self._client.infer(
            self._url, request, model_name=self._model, headers=dict(self._headers)
        )
        outputs = {output.name: first_value(output.as_numpy()) for output in response.outputs}
        return Reply(
            outputs,
            int(response.parameters["version"]),
            response.parameters["prediction_id"],
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


class KServeGrpc:
    """The KServe SDK's gRPC client, without its own retries: they would hide failures."""

    name = "kserve-grpc"
    protocol: Protocol = "grpc"

    def __init__(self, target: Target) -> None:
        self._client = kserve.InferenceGRPCClient(
            target.address,
            timeout=TIMEOUT,
            retries=0,
            channel_args=[("grpc.default_authority", target.host)],
        )
        self._model = target.model
        self._columns = target.columns
        self._headers = tuple(target.headers(self.name).items())

    async def infer(self, row: Row, subject: str) -> Reply:
        """Request a prediction for one row."""
        request = kserve.InferRequest(
            self._model,
            tensors(kserve.InferInput, self._columns, row),
            parameters={"subject": subject},
        )
        response = await self._client.infer(request, headers=self._headers)
        outputs = {output.name: first_value(output.as_numpy()) for output in response.outputs}
        return reply_of(outputs, response.parameters)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


CLIENTS: Final = (KServeHttp, KServeGrpc)
