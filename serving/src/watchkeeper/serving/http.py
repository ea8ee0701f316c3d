"""The HTTP application: an ASGI middleware before MLServer's application.

The middleware answers inference, feedback, liveness and readiness. MLServer answers metadata. There
is no other path, so MLServer's documentation pages and repository API cannot be reached.
"""

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

import msgspec

from watchkeeper.serving.admission import OVERLOADED, Admission
from watchkeeper.serving.connection import ARRIVAL, NO_RETRY
from watchkeeper.serving.content_coding import CODINGS, decompress, read_coding
from watchkeeper.serving.dataplane import DataPlane
from watchkeeper.serving.errors import (
    BodyTimeoutError,
    ClientDisconnectedError,
    MethodNotAllowedError,
    NotFoundError,
    OverloadedError,
    RequestError,
    TlsRequiredError,
    TooLargeError,
    UnimplementedError,
    UnsupportedCodingError,
    UnsupportedMediaTypeError,
)
from watchkeeper.serving.feedback import FeedbackHandler
from watchkeeper.serving.gateway_tokens import GatewayTokens, find_token
from watchkeeper.serving.http_codec import HttpCodec
from watchkeeper.serving.metrics import Metrics
from watchkeeper.serving.request import SYNTHETIC_HEADER, client_name, read_call

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_MODEL_PATH = re.compile(r"/v2/models/([^/]*)(?:/versions/([^/]*))?/([a-z_]+)")
_METADATA_PATH = re.compile(r"/v2(?:/models/[^/]+(?:/versions/[^/]+)?)?")
_OPEN_PATH = re.compile(
    r"/v2/health/(live|ready)|/v2/models/[^/]*(/versions/[^/]*/ready|/ready|/feedback)"
)
# curl and urllib send the last one if the user does not name a content type.
_CONTENT_TYPES = (
    "",
    "application/json",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
)
# Headers that define how to read a request. If one occurs twice, the server would have to guess.
_UNIQUE_HEADERS = (
    "content-type",
    "content-encoding",
    "content-length",
    "inference-header-content-length",
    SYNTHETIC_HEADER,
)
_JSON_LENGTH = "inference-header-content-length"
_CLOSE = (b"connection", b"close")
_JSON = (b"content-type", b"application/json")
_BINARY = (b"content-type", b"application/octet-stream")


class V2Middleware:
    """Routes requests to the data plane, to the feedback handler, or for metadata to MLServer.

    Args:
        mlserver_app: MLServer's ASGI application.
        plane: Answers inference requests.
        feedback: Accepts labels.
        admission: Admission control of the process.
        metrics: Counts refused feedback requests, and requests past the gateway.
        tokens: The tokens of the gateway.
        only_tls: Whether requests without TLS get nothing but health.
        max_body_bytes: Limit for the body of one request.
        body_seconds: How long a body may take to arrive.
    """

    def __init__(
        self,
        mlserver_app: App,
        plane: DataPlane,
        feedback: FeedbackHandler,
        admission: Admission,
        metrics: Metrics,
        *,
        tokens: GatewayTokens,
        only_tls: bool,
        max_body_bytes: int,
        body_seconds: float,
    ) -> None:
        self._mlserver_app = mlserver_app
        self._plane = plane
        self._codec = HttpCodec(plane.model, plane.version)
        self._feedback = feedback
        self._admission = admission
        self._metrics = metrics
        self._tokens = tokens
        self._only_tls = only_tls
        self._max_body_bytes = max_body_bytes
        self._body_seconds = body_seconds
        model, version = plane.model, str(plane.version)
        self._fixed_routes: dict[str, App] = {
            f"/v2/models/{model}/infer": partial(self._infer, model, ""),
            f"/v2/models/{model}/versions/{version}/infer": partial(self._infer, model, version),
            "/v2/health/live": self._live,
            "/v2/health/ready": self._ready,
        }
        self._model_routes = {
            "infer": self._infer,
            "feedback": self._accept_labels,
            "ready": self._model_ready,
            "generate": self._refuse_verb,
            "generate_stream": self._refuse_verb,
            "infer_stream": self._refuse_verb,
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        app = self._route(scope) if scope["type"] == "http" else self._mlserver_app
        try:
            await app(scope, receive, send)
        finally:
            if ARRIVAL in scope:
                self._admission.controller.leave(scope[ARRIVAL])

    def _route(self, scope: Message) -> App:
        path = scope["path"]
        if self._only_tls and scope["scheme"] != "https" and not path.startswith("/v2/health/"):
            self._metrics.past_gateway.inc()
            return partial(self._refuse, TlsRequiredError("this server answers over TLS only"))
        if self._tokens.required and not _OPEN_PATH.fullmatch(path):
            try:
                self._tokens.check(find_token(scope["headers"]))
            except RequestError as error:
                self._metrics.past_gateway.inc()
                return partial(self._refuse, error)
        route = self._fixed_routes.get(path)
        if route is not None:
            return route
        match = _MODEL_PATH.fullmatch(path)
        if match is None or match[3] not in self._model_routes:
            return self._metadata if _METADATA_PATH.fullmatch(path) else self._refuse_path
        return partial(self._model_routes[match[3]], match[1], match[2] or "")

    async def _infer(
        self, model: str, version: str, scope: Message, receive: Receive, send: Send
    ) -> None:
        headers = _headers(scope)
        call = read_call("http", headers, self._plane.synthetic_clients)
        try:
            _check_headers(scope, headers)
            body = await self._read_body(headers, receive)
        except RequestError as error:
            self._plane.refuse(call, error)
            return await self._send_error(send, error)
        if self._admission.controller.is_late(scope.get(ARRIVAL, math.inf)):
            self._admission.shed.count("http")
            return await self._send_error(send, OverloadedError(OVERLOADED))
        try:
            encoded, json_length = await self._plane.infer(
                call, model, version, self._codec, (body, headers.get(_JSON_LENGTH))
            )
        except RequestError as error:
            return await self._send_error(send, error)
        if json_length is None:
            return await self._send(send, 200, encoded, [_JSON])
        length = (b"inference-header-content-length", b"%d" % json_length)
        return await self._send(send, 200, encoded, [_BINARY, length])

    async def _accept_labels(
        self, model: str, version: str, scope: Message, receive: Receive, send: Send
    ) -> None:
        headers = _headers(scope)
        try:
            self._feedback.authenticate(headers.get("authorization", ""))
            _check_headers(scope, headers)
            if version:
                raise NotFoundError("send feedback to the model, without a version in the path")
            body = await self._read_body(headers, receive)
            accepted = self._feedback.accept(model, client_name(headers), body)
        except RequestError as error:
            self._metrics.refused_labels.inc()
            return await self._send_error(send, error)
        return await self._send_json(send, 202, {"accepted": accepted})

    async def _live(self, scope: Message, receive: Receive, send: Send) -> None:  # noqa: ARG002
        await self._send_json(send, 200, {"live": True})

    async def _ready(self, scope: Message, receive: Receive, send: Send) -> None:  # noqa: ARG002
        ready = self._plane.ready
        await self._send_json(send, 200 if ready else 503, {"ready": ready})

    async def _model_ready(
        self, model: str, version: str, scope: Message, receive: Receive, send: Send
    ) -> None:
        plane = self._plane
        if model != plane.model or version not in ("", str(plane.version)):
            return await self._send_error(
                send, NotFoundError(f"model {model!r} is not served here")
            )
        return await self._ready(scope, receive, send)

    async def _refuse_verb(
        self,
        model: str,  # noqa: ARG002
        version: str,  # noqa: ARG002
        scope: Message,
        receive: Receive,  # noqa: ARG002
        send: Send,
    ) -> None:
        verb = scope["path"].rpartition("/")[2]
        error = UnimplementedError(f"{verb!r} is not supported by this server, only 'infer' is")
        call = read_call("http", _headers(scope), self._plane.synthetic_clients)
        self._plane.refuse(call, error)
        await self._send_error(send, error)

    async def _refuse_path(self, scope: Message, receive: Receive, send: Send) -> None:
        error: RequestError = NotFoundError(
            f"{scope['path'][:200]!r} is not served; the paths are /v2, /v2/health/live, "
            f"/v2/health/ready, and /v2/models/{self._plane.model}, which may be followed by "
            "/versions/<version>, and then by /infer or /ready, or by /feedback"
        )
        try:
            await self._read_body(_headers(scope), receive)
        except RequestError as refused:
            error = refused
        await self._send_error(send, error)

    async def _refuse(
        self,
        error: RequestError,
        scope: Message,  # noqa: ARG002
        receive: Receive,  # noqa: ARG002
        send: Send,
    ) -> None:
        await self._send_error(send, error)

    async def _metadata(self, scope: Message, receive: Receive, send: Send) -> None:
        """Let MLServer answer. The body is read here, because MLServer has no limit for it."""
        try:
            body = await self._read_body(_headers(scope), receive)
        except RequestError as error:
            return await self._send_error(send, error)
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_body() -> Message:
            return messages.pop() if messages else await receive()

        return await self._mlserver_app(scope, receive_body, send)

    async def _read_body(self, headers: dict[str, str], receive: Receive) -> bytes:
        """Read and decompress the body, but never more than the limit."""
        coding = read_coding(headers)
        body = await self._receive_body(headers, receive)
        return body if coding is None else decompress(body, coding, self._max_body_bytes)

    async def _receive_body(self, headers: dict[str, str], receive: Receive) -> bytes:
        length = headers.get("content-length", "0")
        if len(length) > 15 or int(length) > self._max_body_bytes:
            raise TooLargeError(
                f"the body has {length[:15]} bytes, the limit is {self._max_body_bytes}"
            )
        message = await receive()
        if not message.get("more_body", False) and message["type"] == "http.request":
            body: bytes = message["body"]
            if len(body) > self._max_body_bytes:
                raise self._too_large()
            return body
        try:
            async with asyncio.timeout(self._body_seconds):
                return await self._read_parts(message, receive)
        except TimeoutError as error:
            raise BodyTimeoutError(
                f"the body did not arrive within {self._body_seconds:g} seconds"
            ) from error

    async def _read_parts(self, message: Message, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            if message["type"] == "http.disconnect":
                raise ClientDisconnectedError(
                    "the client went away before its request was complete"
                )
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._max_body_bytes:
                raise self._too_large()
            if not message.get("more_body", False):
                return b"".join(parts)
            message = await receive()

    def _too_large(self) -> TooLargeError:
        return TooLargeError(f"the body is over the limit of {self._max_body_bytes} bytes")

    async def _send_error(self, send: Send, error: RequestError) -> None:
        body = msgspec.json.encode({"error": str(error)})
        headers = [_JSON]
        if isinstance(error, OverloadedError):
            headers.append(NO_RETRY)
        elif isinstance(error, UnsupportedCodingError):
            headers.append((b"accept-encoding", CODINGS.encode()))
        await self._send(send, error.http, body, headers)

    async def _send_json(self, send: Send, status: int, content: dict[str, Any]) -> None:
        await self._send(send, status, msgspec.json.encode(content), [_JSON])

    async def _send(
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
            # Clients send their next request elsewhere. Otherwise the server would later close
            # connections on which a request is already on its way.
            headers.append(_CLOSE)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _headers(scope: Message) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _check_headers(scope: Message, headers: dict[str, str]) -> None:
    method = scope["method"]
    if len(headers) < len(scope["headers"]):
        names = [name.decode("latin-1") for name, _ in scope["headers"]]
        for name in _UNIQUE_HEADERS:
            if names.count(name) > 1:
                raise RequestError(f"the header {name!r} is given twice")
    if headers.get("transfer-encoding", "chunked").lower() != "chunked":
        raise UnsupportedMediaTypeError("the only supported transfer-encoding is 'chunked'")
    if method != "POST":
        raise MethodNotAllowedError(f"{method} is not allowed here; send a POST")
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in _CONTENT_TYPES:
        raise UnsupportedMediaTypeError(
            f"content type {content_type!r} is not served; send application/json, or "
            "application/octet-stream for JSON followed by binary tensors"
        )
