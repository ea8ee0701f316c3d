"""The calls that need no credential of a client: health, and feedback, which has one of its own.

Gateways let them in, and the server answers the gRPC calls also without the token of its gateway,
because probes come from the node.
"""

from typing import Final

GRPC_CALLS: Final = (
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
    "/inference.GRPCInferenceService/ModelReady",
    "/grpc.health.v1.Health/Check",
)
HTTP_PATHS: Final = (
    "/v2/models/{model}/feedback",
    "/v2/models/{model}/ready",
    "/v2/models/{model}/versions/{version}/ready",
    "/v2/health/live",
    "/v2/health/ready",
)
