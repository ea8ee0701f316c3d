"""``grpc.health.v1.Health``: the readiness of the server, as ``/v2/health/ready`` reports it."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthServicer

from watchkeeper.serving.dataplane import DataPlane

# The names to ask for: the whole server, and inference.
SERVICES = ("", "inference.GRPCInferenceService")


class Health(HealthServicer):  # type: ignore[misc]
    """The methods of the service.

    Args:
        plane: Its readiness is reported.
    """

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Return the status of a service; NOT_FOUND for another service."""
        if request.service not in SERVICES:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"service {request.service!r}: no health is reported for it, only for "
                f"{' and '.join(map(repr, SERVICES))}",
            )
        return self._status(request.service)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802, ARG002
        """Send the status of a service now and after every change.

        The stream ends when the process drains, so that it does not delay the exit.
        """
        while True:
            changed = self._plane.readiness_changed
            yield self._status(request.service)
            if self._plane.draining:
                return
            await changed.wait()

    def _status(self, service: str) -> Any:
        if service not in SERVICES:
            return HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
        ready = self._plane.ready
        return HealthCheckResponse(
            status=HealthCheckResponse.SERVING if ready else HealthCheckResponse.NOT_SERVING
        )
