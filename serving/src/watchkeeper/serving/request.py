"""What passes between the steps of the request path.

``Call`` (from the headers) → ``Request`` (from the body) → ``CheckedRequest`` (after the contract)
→ ``Answer``. A ``Codec`` decodes the first and encodes the last in one of the protocols.
"""

import abc
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from watchkeeper.core.record import Protocol
from watchkeeper.core.signature import Columns, Output
from watchkeeper.serving.contract import CheckedColumns
from watchkeeper.serving.errors import RequestError
from watchkeeper.serving.tensors import Tensor
from watchkeeper.serving.version import Version

MAX_CLIENT_LENGTH = 255
SYNTHETIC_HEADER = "x-watchkeeper-synthetic"
_HEX_DIGITS = frozenset("0123456789abcdef")

Body = TypeVar("Body")
Encoded = TypeVar("Encoded")


class Call(msgspec.Struct, frozen=True, gc=False):
    """What the server knows of a request before it reads the body.

    Attributes:
        request_id: The request part of the prediction id, 32 hex digits.
        attempt: Which attempt of the gateway this is, from 1.
        protocol: "http" or "grpc".
        client: The name of the client.
        time: Time of arrival, in seconds since 1970.
        started: The same moment on the performance counter, in seconds.
        synthetic: "true" or "false", or another value of the header, which is refused.
    """

    request_id: str
    attempt: int
    protocol: Protocol
    client: str
    time: float
    started: float
    synthetic: str = "false"

    @property
    def is_synthetic(self) -> bool:
        """Whether nothing may be learned from the request; a wrong mark counts as a mark."""
        return self.synthetic != "false"

    def check_synthetic(self) -> None:
        """Check the header that marks a request as synthetic.

        Raises:
            RequestError: The value is neither "true" nor "false".
        """
        if self.synthetic not in ("true", "false"):
            raise RequestError(
                f"the header {SYNTHETIC_HEADER!r} is {self.synthetic[:40]!r}; it must be 'true' or "
                "'false'"
            )


def read_call(
    protocol: Protocol, headers: Mapping[str, str], synthetic_clients: frozenset[str] = frozenset()
) -> Call:
    """Read the headers that identify a call. Names of headers are in lower case.

    The gateway sets ``x-request-id`` and ``x-envoy-attempt-count``. Without a valid request id the
    server creates one. A request is synthetic if its header says so, or if its client is one of
    ``synthetic_clients``.
    """
    client = client_name(headers)
    request_id = headers.get("x-request-id", "").replace("-", "").lower()
    attempt = headers.get("x-envoy-attempt-count", "1")
    return Call(
        request_id=request_id
        if len(request_id) == 32 and _HEX_DIGITS.issuperset(request_id)
        else os.urandom(16).hex(),
        attempt=int(attempt) if attempt.isdecimal() and len(attempt) < 9 else 1,
        protocol=protocol,
        client=client,
        time=time.time(),
        started=time.perf_counter(),
        synthetic="true" if client in synthetic_clients else headers.get(SYNTHETIC_HEADER, "false"),
    )


def client_name(headers: Mapping[str, str]) -> str:
    """Return the client's name: the header ``x-watchkeeper-client``, or else the user agent."""
    name = headers.get("x-watchkeeper-client") or headers.get("user-agent", "")
    return name[:MAX_CLIENT_LENGTH]


class Request(msgspec.Struct, frozen=True, gc=False):
    """A decoded body. The contract has not checked it yet.

    Attributes:
        tensors: The inputs, one tensor per column.
        outputs: Names of the outputs that the client wants; empty means all.
        subject: The parameter ``subject`` as the client sent it; UNSET without it.
        id: The client's own id, repeated in the answer; empty without one.
        binary: Whether outputs are encoded as binary data (HTTP) or as raw contents (gRPC).
        binary_outputs: Exceptions from ``binary``, by the name of the output.
    """

    tensors: Sequence[Tensor]
    outputs: Sequence[str] = ()
    subject: object = msgspec.UNSET
    id: str = ""
    binary: bool = False
    binary_outputs: Mapping[str, bool] = {}


class CheckedRequest(msgspec.Struct, frozen=True, gc=False):
    """A request that follows the contract of ``version``."""

    call: Call
    subject: str
    version: Version
    checked: CheckedColumns


class Answer(msgspec.Struct, frozen=True, gc=False):
    """An answer that is recorded and can be encoded.

    Attributes:
        prediction_id: The signed prediction id.
        rows: Number of rows.
        outputs: The outputs that the client wants, in order.
        columns: The values of each output, of shape (rows,).
        lists: The same values as Python lists.
        flags: One text per column with values out of range.
    """

    prediction_id: str
    rows: int
    outputs: tuple[Output, ...]
    columns: Columns
    lists: dict[str, list[Any]]
    flags: list[str]


class Codec(abc.ABC, Generic[Body, Encoded]):
    """Decodes bodies and encodes answers of one protocol."""

    @abc.abstractmethod
    def decode(self, body: Body) -> Request:
        """Read a body.

        Raises:
            RequestError: The body does not have the form of an inference request.
        """

    @abc.abstractmethod
    def encode(self, answer: Answer, request: Request) -> Encoded:
        """Write an answer in the form that the request asks for."""
