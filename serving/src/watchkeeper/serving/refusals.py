"""Why a request is not answered; each refusal owns its status in both protocols.

The message goes to the client and into the record: it names the column and the rule.
"""

from typing import ClassVar

MAX_MESSAGE = 500  # a hostile name must not make the answer large


class Refused(Exception):  # noqa: N818 - it says what happened to the request
    """The request breaks a rule of the protocol or of the model's contract."""

    http: ClassVar[int] = 400
    grpc: ClassVar[str] = "INVALID_ARGUMENT"

    def __init__(self, message: str) -> None:
        # Lone surrogates can be part of a name in JSON, but of no record and no answer.
        safe = message.encode("utf-8", "replace").decode()
        super().__init__(safe if len(safe) <= MAX_MESSAGE else safe[:MAX_MESSAGE] + "…")


# What to do about a model that is not served here.
ELSEWHERE = "where models share an address, the host names the model (in gRPC the :authority)"


class NotFound(Refused):
    """The model, version or prediction is not known here."""

    http, grpc = 404, "NOT_FOUND"


class NotServed(Refused):
    """The protocol or another server knows this way of inference, this one does not."""

    http, grpc = 404, "UNIMPLEMENTED"


class WrongMethod(Refused):
    """The path takes POST only."""

    http = 405


class TooLarge(Refused):
    """The body is over the limit."""

    http, grpc = 413, "RESOURCE_EXHAUSTED"


class WrongContentType(Refused):
    """The body is of a content type or encoding that is not served."""

    http = 415


class Upgrade(Refused):
    """The client wants to go on in another protocol; what follows is no request of ours."""


class Unauthenticated(Refused):
    """The credential is missing or wrong."""

    http, grpc = 401, "UNAUTHENTICATED"


class TooSlow(Refused):
    """The body did not arrive in time."""

    http, grpc = 408, "DEADLINE_EXCEEDED"


class Gone(Refused):
    """The client went away before its request was complete; nobody reads the answer."""

    http, grpc = 400, "CANCELLED"


class Unavailable(Refused):
    """Not now: the version is still loading, or the spool has no room for labels."""

    http, grpc = 503, "UNAVAILABLE"


class Overloaded(Refused):
    """More requests come than can be answered in time."""

    http, grpc = 503, "RESOURCE_EXHAUSTED"


class Broken(Refused):
    """The fault is here, not in the request; the log has the traceback."""

    http, grpc = 500, "INTERNAL"
