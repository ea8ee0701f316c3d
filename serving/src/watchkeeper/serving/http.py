"""HTTP: an ASGI application in front of MLServer's, which takes the ways that are ours.

Ours are inference, feedback, liveness and readiness; everything else goes on to MLServer.
"""

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

import msgspec

from watchkeeper.serving import v2
from watchkeeper.serving.connection import ARRIVAL, NO_RETRY
from watchkeeper.serving.dataplane import DataPlane, Request
from watchkeeper.serving.feedback import Feedback
from watchkeeper.serving.overload import MESSAGE, Admission
from watchkeeper.serving.refusals import (
    Gone,
    NotFound,
    NotServed,
    Overloaded,
    Refused,
    TooLarge,
    TooSlow,
    Upgrade,
    WrongContentType,
    WrongMethod,
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_PATH = re.compile(r"/v2/models/([^/]*)(?:/versions/([^/]*))?/([a-z_]+)")
_INDEX = "/v2/repository/index"
# The last one is what curl and urllib say of any body that nobody gave a type.
_TYPES = (
    "",
    "application/json",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
)
# Headers that say how a body is to be read; of two it would be a guess.
_SINGLE = ("content-type", "content-encoding", "content-length", "inference-header-content-length")
_CLOSE = (b"connection", b"close")
_JSON = (b"content-type", b"application/json")
_BINARY = (b"content-type", b"application/octet-stream")


class Front:
    """The application that the HTTP server calls."""

    def __init__(
        self,
        behind: App,
        plane: DataPlane,
        feedback: Feedback,
        admission: Admission,
        *,
        limit: int,
        seconds: float,
    ) -> None:
        self._behind = behind
        self._plane = plane
        self._feedback = feedback
        self._admission = admission
        self._limit = limit
        self._seconds = seconds
        infer, version = f"/v2/models/{plane.model}", str(plane.version)
        self._known: dict[str, App] = {
            f"{infer}/infer": partial(self._infer, plane.model, ""),
            f"{infer}/versions/{version}/infer": partial(self._infer, plane.model, version),
            "/v2/health/live": self._live,
            "/v2/health/ready": self._ready,
        }
        self._verbs = {
            "infer": self._infer,
            "feedback": self._take_labels,
            "ready": self._model_ready,
            **dict.fromkeys(("generate", "generate_stream", "infer_stream"), self._unserved),
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer, or hand over to MLServer."""
        way = self._way(scope["path"]) if scope["type"] == "http" else self._behind
        try:
            await way(scope, receive, send)
        finally:
            if ARRIVAL in scope:
                self._admission.gate.leave(scope[ARRIVAL])

    def _way(self, path: str) -> App:
        known = self._known.get(path)
        if known is not None:
            return known
        match = _PATH.fullmatch(path)
        if match is None or match[3] not in self._verbs:
            return self._hand_over
        return partial(self._verbs[match[3]], match[1], match[2] or "")

    async def _live(self, scope: Message, receive: Receive, send: Send) -> None:  # noqa: ARG002
        await self._send(send, 200, {"live": True})

    async def _ready(self, scope: Message, receive: Receive, send: Send) -> None:  # noqa: ARG002
        ready = self._plane.ready
        await self._send(send, 200 if ready else 503, {"ready": ready})

    async def _hand_over(self, scope: Message, receive: Receive, send: Send) -> None:
        """Hand over to MLServer, which would read a body of any size."""
        try:
            body = await self._read(_headers(scope), receive)
        except Refused as refused:
            return await self._refuse(send, refused)
        if scope["path"] == _INDEX:
            body = body or b"{}"  # where tritonclient sends none
        given = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again() -> Message:
            return given.pop() if given else await receive()

        return await self._behind(scope, receive_again, send)

    async def _model_ready(
        self, model: str, version: str, scope: Message, receive: Receive, send: Send
    ) -> None:
        plane = self._plane
        if model != plane.model or version not in ("", str(plane.version)):
            return await self._refuse(send, NotFound(f"model {model!r} is not served here"))
        return await self._ready(scope, receive, send)

    async def _unserved(
        self,
        model: str,  # noqa: ARG002
        version: str,  # noqa: ARG002
        scope: Message,
        receive: Receive,  # noqa: ARG002
        send: Send,
    ) -> None:
        verb = scope["path"].rpartition("/")[2]
        refused = NotServed(f"{verb!r} is not served here, only 'infer'")
        self._plane.refuse(self._plane.call("http", _headers(scope)), refused)
        await self._refuse(send, refused)

    async def _infer(
        self, model: str, version: str, scope: Message, receive: Receive, send: Send
    ) -> None:
        headers = _headers(scope)
        call = self._plane.call("http", headers)
        try:
            try:
                _check(scope, headers)
                body = await self._read(headers, receive)
            except Refused as refused:
                self._plane.refuse(call, refused)
                raise
            if self._admission.gate.late(scope.get(ARRIVAL, math.inf)):
                self._admission.turned_away.add("http")
                raise Overloaded(MESSAGE)
            wanted = v2.Wanted("", False, {})

            def read() -> Request:
                nonlocal wanted
                request, wanted = v2.decode(body, headers.get("inference-header-content-length"))
                return request

            answer = await self._plane.infer(call, model, version, read)
        except Refused as refused:
            return await self._refuse(send, refused)
        encoded, json_length = v2.encode(answer, wanted, model, str(self._plane.version))
        if json_length is None:
            return await self._reply(send, 200, encoded, [_JSON])
        length = (b"inference-header-content-length", b"%d" % json_length)
        return await self._reply(send, 200, encoded, [_BINARY, length])

    async def _take_labels(
        self, model: str, version: str, scope: Message, receive: Receive, send: Send
    ) -> None:
        headers = _headers(scope)
        client = headers.get("x-watchkeeper-client") or headers.get("user-agent", "")
        try:
            self._feedback.authenticate(headers.get("authorization", ""))
            _check(scope, headers)
            if version:
                raise NotFound("feedback goes to the model, whichever version answered")
            accepted = self._feedback.accept(model, client, await self._read(headers, receive))
        except Refused as refused:
            self._plane.metrics.refused_labels.inc()
            return await self._refuse(send, refused)
        return await self._send(send, 202, {"accepted": accepted})

    async def _read(self, headers: dict[str, str], receive: Receive) -> bytes:
        """Read the body, never more of it than the limit."""
        length = headers.get("content-length", "0")
        if len(length) > 15 or int(length) > self._limit:
            raise TooLarge(f"the body has {length[:15]} bytes, the limit is {self._limit}")
        message = await receive()
        if not message.get("more_body", False) and message["type"] == "http.request":
            body: bytes = message["body"]
            if len(body) > self._limit:
                raise TooLarge(f"the body is over the limit of {self._limit} bytes")
            return body
        try:
            async with asyncio.timeout(self._seconds):
                return await self._read_on(message, receive)
        except TimeoutError as error:
            raise TooSlow(f"the body did not arrive within {self._seconds:g} seconds") from error

    async def _read_on(self, message: Message, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            if message["type"] == "http.disconnect":
                raise Gone("the client went away before its request was complete")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._limit:
                raise TooLarge(f"the body is over the limit of {self._limit} bytes")
            if not message.get("more_body", False):
                return b"".join(parts)
            message = await receive()

    async def _refuse(self, send: Send, refused: Refused) -> None:
        body = msgspec.json.encode({"error": str(refused)})
        headers = [_JSON, _CLOSE] if isinstance(refused, Upgrade) else [_JSON]
        if isinstance(refused, Overloaded):
            headers.append(NO_RETRY)
        await self._reply(send, refused.http, body, headers)

    async def _send(self, send: Send, status: int, content: dict[str, Any]) -> None:
        await self._reply(send, status, msgspec.json.encode(content), [_JSON])

    async def _reply(
        self, send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]
    ) -> None:
        headers.append((b"content-length", b"%d" % len(body)))
        if status == 503:
            headers.append((b"retry-after", b"1"))
        elif status == 405:
            headers.append((b"allow", b"POST"))
        elif status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if self._plane.draining:
            # Whoever still comes takes its next request elsewhere, and no connection that is
            # about to carry one is closed under it.
            headers.append(_CLOSE)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _headers(scope: Message) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _check(scope: Message, headers: dict[str, str]) -> None:
    method = scope["method"]
    if len(headers) < len(scope["headers"]):
        names = [name.decode("latin-1") for name, _ in scope["headers"]]
        for name in _SINGLE:
            if names.count(name) > 1:
                raise Refused(f"the header {name!r} is given twice")
    if "upgrade" in headers:
        raise Upgrade("the header 'upgrade' is not served here; send plain HTTP/1.1")
    if headers.get("transfer-encoding", "chunked").lower() != "chunked":
        raise WrongContentType("a transfer-encoding other than 'chunked' is not served here")
    if method != "POST":
        raise WrongMethod(f"{method} is not served here; send a POST")
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in _TYPES:
        raise WrongContentType(
            f"content type {content_type!r} is not served; send application/json, or "
            "application/octet-stream for JSON followed by binary tensors"
        )
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise WrongContentType("compressed bodies are not served; send the body as it is")
