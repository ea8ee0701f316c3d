"""A connection over HTTP/1.1: uvicorn's, with one form of error and a bound for its heads."""

import sys
from collections.abc import Callable
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 64 * 1024


class Connection(HttpToolsProtocol):
    """``malformed`` is told of what is no HTTP, so that it leaves a record too."""

    def __init__(self, *arguments: Any, malformed: Callable[[str], None], **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._malformed = malformed
        self._head = 0

    def data_received(self, data: bytes) -> None:
        """Take bytes; a head that does not end would fill the memory."""
        super().data_received(data)
        if self.scope is None or (self.cycle is not None and self.cycle.scope is self.scope):
            self._head = 0
            return
        self._head += len(data)
        if self._head > HEAD_BYTES and not self.transport.is_closing():
            self._end(431, b"Request Header Fields Too Large", f"a head over {HEAD_BYTES} bytes")

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
