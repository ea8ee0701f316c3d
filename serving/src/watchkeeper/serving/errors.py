"""Errors of requests. Each class defines its status in HTTP and in gRPC.

The message goes to the client and into the record. It names the column and the rule.
"""

from typing import ClassVar

_MAX_LENGTH = 500  # a long name in a hostile request must not make the answer long


class RequestError(Exception):
    """The request breaks a rule of the protocol or of the model's contract.

    ``http`` is the status code of HTTP, ``grpc`` the name of the gRPC status.
    """

    http: ClassVar[int] = 400
    grpc: ClassVar[str] = "INVALID_ARGUMENT"

    def __init__(self, message: str) -> None:
        # A name in JSON can contain lone surrogates. A record and an answer cannot.
        safe = message.encode("utf-8", "replace").decode()
        super().__init__(safe if len(safe) <= _MAX_LENGTH else safe[:_MAX_LENGTH] + "…")


# What a client can do about a model that is not served here.
MODEL_HINT = "where models share an address, the host names the model (in gRPC the :authority)"


class NotFoundError(RequestError):
    """This server does not know the model, version or prediction."""

    http, grpc = 404, "NOT_FOUND"


class UnimplementedError(RequestError):
    """The protocol has this kind of inference, but this server does not support it."""

    http, grpc = 404, "UNIMPLEMENTED"


class MethodNotAllowedError(RequestError):
    """The path accepts POST only."""

    http = 405


class TooLargeError(RequestError):
    """The body is larger than the limit."""

    http, grpc = 413, "RESOURCE_EXHAUSTED"


class UnsupportedMediaTypeError(RequestError):
    """The server does not support the content type or the transfer encoding of the body."""

    http = 415


class UnsupportedCodingError(UnsupportedMediaTypeError):
    """The server does not support the compression of the body."""


class UnauthenticatedError(RequestError):
    """The credential is missing or wrong."""

    http, grpc = 401, "UNAUTHENTICATED"


class TlsRequiredError(RequestError):
    """The connection has no TLS."""

    http = 403


class BodyTimeoutError(RequestError):
    """The body did not arrive in time."""

    http, grpc = 408, "DEADLINE_EXCEEDED"


class ClientDisconnectedError(RequestError):
    """The client closed the connection before its request was complete."""

    http, grpc = 400, "CANCELLED"


class TemporarilyUnavailableError(RequestError):
    """The version is still loading, or the spool has no room for labels."""

    http, grpc = 503, "UNAVAILABLE"


class OverloadedError(RequestError):
    """More requests arrive than the server can answer in time."""

    http, grpc = 503, "RESOURCE_EXHAUSTED"


class InternalError(RequestError):
    """The fault is in the server, not in the request. The log contains the traceback."""

    http, grpc = 500, "INTERNAL"
