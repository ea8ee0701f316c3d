"""A connection over HTTP/1.1: uvicorn's, with our form of errors and with limits.

The length of a request's head and the number of connections are limited. Under overload, the
connection refuses whole requests before it parses them. This costs a tenth of an answer.
"""

import asyncio
import re
import sys
from collections.abc import Callable
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from watchkeeper.serving.admission import OVERLOADED, AdmissionController
from watchkeeper.serving.request_parser import RequestParser, offers_upgrade

MAX_HEAD_BYTES = 64 * 1024
# Key of the scope: the arrival that the admission controller returned. The application calls
# ``leave`` with it.
ARRIVAL = "watchkeeper.arrival"
# How long a connection beyond the limit may take to ask for health.
_SURPLUS_SECONDS = 5.0
_HEALTH = b"GET /v2/health/"
_INFER = re.compile(rb"POST /v2/models/[^ ]+/infer(\?[^ ]*)? HTTP/1\.1\r\n")
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n")
# Envoy does not retry an answer with this header. Four times the load would be worse.
NO_RETRY = (b"x-envoy-ratelimited", b"true")
_BODY = msgspec.json.encode({"error": OVERLOADED})
_HEAD = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
    b"%b: %b\r\n" % NO_RETRY
)
_REFUSAL = _HEAD + b"content-length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
_REFUSAL_AND_CLOSE = _HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (
    len(_BODY),
    _BODY,
)


class Connection(HttpToolsProtocol):
    """One connection.

    Args:
        arguments, named: The arguments of uvicorn's protocol.
        on_malformed: Called with the reason if the bytes are not HTTP, so that it is recorded.
        on_shed: Called for each request that is refused unread.
        controller: Admission control; None to admit every request.
        limit: Number of connections beyond which only health is answered.
    """

    def __init__(
        self,
        *arguments: Any,
        on_malformed: Callable[[str], None],
        on_shed: Callable[[], None],
        controller: AdmissionController | None,
        limit: int,
        **named: Any,
    ) -> None:
        super().__init__(*arguments, **named)
        self._on_malformed = on_malformed
        self._on_shed = on_shed
        self._controller = controller
        self._limit = limit
        self._surplus: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self.parser: RequestParser = RequestParser(self)
        # uvicorn's own setting: a pipelined request may follow one that closes the connection.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start. A connection beyond the limit is aborted if it does not ask for health soon."""
        super().connection_made(transport)  # type: ignore[arg-type]
        if len(self.connections) > self._limit:
            self._surplus = self.loop.call_later(_SURPLUS_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """End. Pipelined requests behind the one in progress leave the queue unanswered."""
        super().connection_lost(exc)
        if self._surplus is not None:
            self._surplus.cancel()
        while self.pipeline:
            scope: Any = self.pipeline.pop()[0].scope
            if self._controller is not None and ARRIVAL in scope:
                self._controller.leave(scope[ARRIVAL])

    def on_message_complete(self) -> None:
        """Enter the queue: the request is complete and waits for the application."""
        super().on_message_complete()
        if self.parser.should_upgrade() and self._should_upgrade():
            return
        if self._controller is not None and not self.cycle.response_complete:
            scope: Any = self.cycle.scope
            scope[ARRIVAL] = self._controller.enter()

    def data_received(self, data: bytes) -> None:
        """Refuse the request unread, or parse it. The head of a request is limited."""
        if self._surplus is not None and not data.startswith(_HEALTH):
            self._on_shed()
            self.transport.write(_REFUSAL_AND_CLOSE)
            self.transport.close()
            return
        if self._controller is not None and self._controller.is_full() and self._is_whole(data):
            self._on_shed()
            self.transport.write(_REFUSAL)
            return
        super().data_received(data)
        if self.scope is None or (self.cycle is not None and self.cycle.scope is self.scope):
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(
                431, b"Request Header Fields Too Large", f"a head over {MAX_HEAD_BYTES} bytes"
            )

    def _is_whole(self, data: bytes) -> bool:
        """Return whether these bytes are exactly one inference request."""
        cycle = self.cycle
        if cycle is None:
            between_requests = self.scope is None
        else:
            between_requests = (
                cycle.scope is self.scope and cycle.response_complete and not cycle.more_body
            )
        if not between_requests or not _INFER.match(data):
            return False
        end = data.find(b"\r\n\r\n")
        head = data[: end + 2].lower()
        length = _CONTENT_LENGTH.search(head)
        return (
            end > 0
            and length is not None
            and len(data) == end + 4 + int(length[1])
            and b"\r\nconnection: close" not in head
            and b"\r\ntransfer-encoding" not in head
        )

    def _should_upgrade(self) -> bool:
        """Return whether to ignore a request: the parser repeats it without the offer."""
        return offers_upgrade(self)

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that the parser refuses. uvicorn calls this."""
        self._refuse(400, b"Bad Request", f"{msg} {sys.exception() or ''}".strip())

    def _refuse(self, status: int, phrase: bytes, reason: str) -> None:
        if self.cycle is None or self.cycle.response_complete:
            # Otherwise the bytes belong to the body of a request, which has a record of its own.
            self._on_malformed(reason)
        body = msgspec.json.encode({"error": reason})
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            b"connection: close\r\n\r\n%b" % (status, phrase, len(body), body)
        )
        self.transport.close()
