"""Records: what the server writes of every request, in lines of JSON, and how they are read.

Requests that were answered together have one line. Readers skip fields they do not know and read
all that was ever written, because a spool may be older than its sidecar. A line of a kind that is
newer than the sidecar is counted as lost.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

Protocol = Literal["http", "grpc"]
OK = "OK"


class Prediction(
    msgspec.Struct, frozen=True, omit_defaults=True, tag="prediction", tag_field="kind"
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


# One is made for each request: no cycle can begin in it, and its values go without their names.
class Answered(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What a line says of one request of a round; the fields are those of a prediction."""

    id: str
    attempt: int
    protocol: Protocol
    client: str
    time: float
    latency: float
    rows: int
    flags: list[str]
    subject: str


class Round(msgspec.Struct, frozen=True, gc=False, tag="round", tag_field="kind"):
    """The predictions of requests that went through the model together, as the server had them.

    ``inputs`` holds of each column one list a request, ``outputs`` one list of all their rows.
    Half the bytes of a line for each.
    """

    model: str
    version: int
    answered: list[Answered]
    inputs: Mapping[str, Sequence[Any]]
    outputs: Mapping[str, Sequence[Any]]

    def predictions(self) -> Iterator[Prediction]:
        """Return what each of the requests was told.

        Raises:
            msgspec.ValidationError: its lists do not have the same length.
        """
        requests, rows = len(self.answered), sum(one.rows for one in self.answered)
        if (
            any(one.rows < 1 for one in self.answered)
            or any(len(values) != requests for values in self.inputs.values())
            or any(len(values) != rows for values in self.outputs.values())
        ):
            raise msgspec.ValidationError(
                f"its columns do not fit {requests} requests, {rows} rows"
            )
        end = 0
        for number, one in enumerate(self.answered):
            begin, end = end, end + one.rows
            yield Prediction(
                **msgspec.structs.asdict(one),
                model=self.model,
                version=self.version,
                status=OK,
                inputs={name: values[number] for name, values in self.inputs.items()},
                outputs={name: list(values[begin:end]) for name, values in self.outputs.items()},
            )


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


Record = Prediction | LabelRecord | Gap | Shed

_decoder: msgspec.json.Decoder[Record | Round] = msgspec.json.Decoder(Record | Round)


def decode_line(line: bytes) -> list[Record]:
    """Read one line of a spool: a record, or those of a round.

    Raises:
        msgspec.MsgspecError: it is no record; the caller counts it and goes on.
    """
    try:
        decoded = _decoder.decode(line)
    except (UnicodeDecodeError, RecursionError) as error:  # what a disk may make of a line
        raise msgspec.DecodeError(str(error)) from error
    return list(decoded.predictions()) if isinstance(decoded, Round) else [decoded]
