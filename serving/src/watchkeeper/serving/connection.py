"""A connection over HTTP/1.1: uvicorn's, with one form of error and bounds of its own.

Heads are bounded, connections are, and under overload whole requests are turned away before
they are parsed: that costs a tenth of what the answer would.
"""

import asyncio
import re
import sys
from collections.abc import Callable
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from watchkeeper.serving.overload import MESSAGE, Gate

HEAD_BYTES = 64 * 1024
ARRIVAL = "watchkeeper.arrival"  # of the scope: when the gate was entered; who finds it, leaves
# How long a connection too many may take to say that it wants to know about health only.
_SURPLUS_SECONDS = 5.0
_HEALTH = b"GET /v2/health/"
_INFER = re.compile(rb"POST /v2/models/[^ ]+/infer(\?[^ ]*)? HTTP/1\.1\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n")
_BODY = msgspec.json.encode({"error": MESSAGE})
# Envoy retries no answer that says so: overload times four would be the end.
NO_RETRY = (b"x-envoy-ratelimited", b"true")
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
    b"%b: %b\r\n" % NO_RETRY
)
_LATER = _BUSY + b"content-length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
_LAST = _BUSY + b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(_BODY), _BODY)


class Connection(HttpToolsProtocol):
    """``malformed`` is told of what is no HTTP, so that it leaves a record too.

    ``shed`` is told of requests that were turned away, by ``gate`` if there is one, or because
    there are more connections than ``limit``.
    """

    def __init__(
        self,
        *arguments: Any,
        malformed: Callable[[str], None],
        shed: Callable[[], None],
        gate: Gate | None,
        limit: int,
        **named: Any,
    ) -> None:
        super().__init__(*arguments, **named)
        self._malformed = malformed
        self._shed = shed
        self._gate = gate
        self._limit = limit
        self._surplus: asyncio.TimerHandle | None = None
        self._head = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; a connection too many has little time to say what it wants."""
        super().connection_made(transport)  # type: ignore[arg-type]
        if len(self.connections) > self._limit:
            self._surplus = self.loop.call_later(_SURPLUS_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """End; requests that came behind the one in progress will never begin."""
        super().connection_lost(exc)
        if self._surplus is not None:
            self._surplus.cancel()
        while self.pipeline:
            scope: Any = self.pipeline.pop()[0].scope
            if self._gate is not None and ARRIVAL in scope:
                self._gate.leave(scope[ARRIVAL])

    def on_message_complete(self) -> None:
        """Begin to wait for the event loop; the application tells when that is over."""
        super().on_message_complete()
        if self._gate is not None and not self.cycle.response_complete:
            scope: Any = self.cycle.scope
            scope[ARRIVAL] = self._gate.enter()

    def data_received(self, data: bytes) -> None:
        """Take bytes; a head that does not end would fill the memory."""
        if self._surplus is not None and not data.startswith(_HEALTH):
            self._shed()
            self.transport.write(_LAST)
            self.transport.close()
            return
        if self._gate is not None and self._gate.full() and self._is_whole(data):
            self._shed()
            self.transport.write(_LATER)
            return
        super().data_received(data)
        if self.scope is None or (self.cycle is not None and self.cycle.scope is self.scope):
            self._head = 0
            return
        self._head += len(data)
        if self._head > HEAD_BYTES and not self.transport.is_closing():
            self._end(431, b"Request Header Fields Too Large", f"a head over {HEAD_BYTES} bytes")

    def _is_whole(self, data: bytes) -> bool:
        """Tell whether these bytes are one inference request from its beginning to its end."""
        cycle = self.cycle
        if cycle is None:
            between = self.scope is None
        else:
            between = cycle.scope is self.scope and cycle.response_complete and not cycle.more_body
        if not between or not _INFER.match(data):
            return False
        end = data.find(b"\r\n\r\n")
        head = data[: end + 2].lower()
        length = _LENGTH.search(head)
        return (
            end > 0
            and length is not None
            and len(data) == end + 4 + int(length[1])
            and b"\r\nconnection: close" not in head
            and b"\r\ntransfer-encoding" not in head
        )

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser refuses."""
        self._end(400, b"Bad Request", f"{msg} {sys.exception() or ''}".strip())

    def _end(self, status: int, reason: bytes, why: str) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self._malformed(why)  # else it ends a body, and that request's record says so
        body = msgspec.json.encode({"error": why})
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            b"connection: close\r\n\r\n%b" % (status, reason, len(body), body)
        )
        self.transport.close()
