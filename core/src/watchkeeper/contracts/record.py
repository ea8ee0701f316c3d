"""Records: what the server writes of every request, one JSON line each, and how they are read.

Readers skip fields they do not know, so that a spool and a sidecar of different versions
understand each other.
"""

from typing import Any, Literal

import msgspec

Protocol = Literal["http", "grpc"]
OK = "OK"


# One is made for each request: no cycle can begin in it, and what is empty need not be written.
class Prediction(
    msgspec.Struct, frozen=True, omit_defaults=True, gc=False, tag="prediction", tag_field="kind"
):
    """One inference request as it was served, or refused.

    ``id`` is the request part of the prediction id, ``attempt`` counts the gateway's tries from
    1, ``time`` is the arrival in seconds since 1970, ``latency`` in seconds, ``status`` "OK" or
    the gRPC name of the error, ``inputs`` and ``outputs`` hold one list a column, ``flags`` the
    values answered in spite of being out of range. ``subject`` names the machine or person that
    the request is about, if the client said so: what is kept of it can be deleted by that name.
    """

    id: str
    attempt: int
    model: str
    version: int
    protocol: Protocol
    client: str
    time: float
    latency: float
    status: str
    rows: int = 0
    inputs: dict[str, Any] = {}
    outputs: dict[str, Any] = {}
    error: str | None = None
    flags: list[str] = []
    subject: str = ""


class LabelRecord(msgspec.Struct, frozen=True, tag="label", tag_field="kind"):
    """What turned out to be true for one row of a prediction, as a client reported it."""

    prediction: str
    row: int
    model: str
    version: int
    value: float
    time: float
    client: str


class Gap(msgspec.Struct, frozen=True, tag="gap", tag_field="kind"):
    """``lost`` records could not be kept between ``since`` and ``until``: the spool was full."""

    model: str
    version: int
    lost: int
    since: float
    until: float


class Shed(msgspec.Struct, frozen=True, tag="shed", tag_field="kind"):
    """``count`` requests were turned away unread between ``since`` and ``until``: overload."""

    model: str
    version: int
    protocol: Protocol
    count: int
    since: float
    until: float


Line = Prediction | LabelRecord | Gap | Shed

_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


def decode_line(line: bytes) -> Line:
    """Read one line of a spool.

    Raises:
        msgspec.MsgspecError: it is no record; the caller counts it and goes on.
    """
    return _decoder.decode(line)
