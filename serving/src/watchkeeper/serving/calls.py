"""Calls on the gRPC server: which method they go to, and how many its core turned away.

gRPC's core queues calls before Python knows of them, and turns away what is over the bound of
that queue, at a hundredth of the cost of an answer. It tells nobody, but its own statistics
(channelz) count every call that began; the rest of them came here.
"""

from typing import Any

import grpc
import msgspec
from grpc._cython import cygrpc  # grpcio-channelz, the public package, asks the same functions

# Calls that may wait in the core: as many as are answered within a few milliseconds.
PENDING = 16
# Streams that one connection may have open; clients queue the rest themselves.
_STREAMS = 1024


class _Data(msgspec.Struct):
    callsStarted: str = "0"  # noqa: N815 - the name in the statistics


class _Reference(msgspec.Struct):
    serverId: str  # noqa: N815


class _Server(msgspec.Struct):
    ref: _Reference
    data: _Data


class _Servers(msgspec.Struct):
    server: list[_Server] = []


class _OneServer(msgspec.Struct):
    server: _Server


class Calls(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Hands every call to its method. ModelInfer goes by the bytes of its messages."""

    def __init__(self) -> None:
        self._methods: dict[str, Any] = {}
        self._begun = 0
        self._turned_away = 0
        self._started = 0
        self._server = 0

    def service(self, details: Any) -> Any:
        """Find the method of a call that begins; None if there is none."""
        self._begun += 1
        return self._methods.get(details.method)

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Take the methods of a service, as generated code hands them over."""
        self._methods |= {f"/{service}/{name}": handler for name, handler in handlers.items()}
        infer = handlers.get("ModelInfer")
        if infer is not None:
            # As a stream of one message, which is the same on the wire: the servicer then learns
            # of messages that gRPC itself has refused for their size.
            self._methods[f"/{service}/ModelInfer"] = grpc.stream_unary_rpc_method_handler(
                infer.unary_unary
            )

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Drop them: they are the same methods once more."""

    def watch(self) -> None:
        """Find the statistics of the server that was made last."""
        found = msgspec.json.decode(cygrpc.channelz_get_servers(0), type=_Servers).server
        self._server = max(int(server.ref.serverId) for server in found)

    def turned_away(self) -> int:
        """Return how many calls the core has turned away since this was asked last.

        While calls keep beginning, up to PENDING of them may just be waiting: those are told
        later.
        """
        answer = cygrpc.channelz_get_server(self._server)
        started = int(msgspec.json.decode(answer, type=_OneServer).server.data.callsStarted)
        quiet = started == self._started
        self._started = started
        known = max(started - self._begun - (0 if quiet else PENDING), self._turned_away)
        new, self._turned_away = known - self._turned_away, known
        return new


def options(connections: int) -> list[tuple[str, int]]:
    """Return the bounds of the server's queue and of what may fill its memory."""
    return [
        ("grpc.enable_channelz", 1),
        ("grpc.server.max_pending_requests", PENDING),
        ("grpc.server.max_pending_requests_hard_limit", PENDING),
        ("grpc.max_allowed_incoming_connections", connections),
        ("grpc.max_concurrent_streams", _STREAMS),
    ]
