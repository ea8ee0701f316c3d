"""Records: what the server writes to the spool about requests, labels and losses.

A record is one line of JSON. Requests that went through the model together share one line, a
:class:`Batch`. A spool may be older or newer than its sidecar: readers skip unknown fields, and
read every form that was ever written. A line of an unknown kind counts as lost.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

Protocol = Literal["http", "grpc"]
OK: Final = "OK"


class Prediction(
    msgspec.Struct, frozen=True, omit_defaults=True, tag="prediction", tag_field="kind"
):
    """One request that the server has answered or refused.

    Attributes:
        id: The request part of the prediction id.
        attempt: The gateway's count of attempts at the request, from 1.
        model: The model.
        version: The version that the server serves.
        protocol: The protocol of the request.
        client: The name of the client, as the gateway has identified it.
        time: When the request arrived, in seconds since 1970.
        latency: How long the answer took, in seconds.
        status: "OK", or the gRPC name of the error.
        rows: The number of rows.
        inputs: One list of values for each column, of length ``rows``.
        outputs: One list of values for each output and hidden score, of length ``rows``.
        error: The error message; None if the request was answered.
        flags: Values outside their declared range that were answered nevertheless.
        subject: The machine or person that the request is about; empty if the client named none.
            Everything about a subject can be deleted.
        synthetic: Whether the request was declared synthetic, for example a load test. Nothing is
            learned from it.
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
    synthetic: bool = False


# The server creates one for each request. gc=False: it contains no cycles. array_like: its line
# contains no names of fields.
class BatchedRequest(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One request of a batch; the fields are those of a :class:`Prediction`."""

    id: str
    attempt: int
    protocol: Protocol
    client: str
    time: float
    latency: float
    rows: int
    flags: list[str]
    subject: str
    synthetic: bool = False  # lines of earlier releases end before it


class Batch(msgspec.Struct, frozen=True, gc=False, tag="round", tag_field="kind"):
    """The predictions of requests that went through the model together.

    A line of this form has half the size of one line for each request. It contains columns as the
    server has them:

    Attributes:
        model: The model.
        version: The version.
        answered: The requests, in order.
        inputs: For each column one list for each request.
        outputs: For each output one list of the values of all rows.
    """

    model: str
    version: int
    answered: list[BatchedRequest]
    inputs: Mapping[str, Sequence[Any]]
    outputs: Mapping[str, Sequence[Any]]

    def predictions(self) -> Iterator[Prediction]:
        """Return one prediction for each request.

        Raises:
            msgspec.ValidationError: the lengths of the lists do not fit together.
        """
        requests, rows = len(self.answered), sum(one.rows for one in self.answered)
        if (
            any(one.rows < 1 for one in self.answered)
            or any(len(values) != requests for values in self.inputs.values())
            or any(len(values) != rows for values in self.outputs.values())
        ):
            raise msgspec.ValidationError(
                f"the columns do not fit {requests} requests, {rows} rows"
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
    """The label of one row of a prediction, as a client has sent it.

    ``row`` counts from 0, ``time`` is when the label arrived, in seconds since 1970. ``name`` is
    that of the truth, see :mod:`watchkeeper.core.truths`.
    """

    prediction: str
    row: int
    model: str
    version: int
    value: float
    time: float
    client: str
    name: str = ""


class Gap(msgspec.Struct, frozen=True, tag="gap", tag_field="kind"):
    """``lost`` records were not written between ``since`` and ``until``: the spool was full.

    Times are in seconds since 1970.
    """

    model: str
    version: int
    lost: int
    since: float
    until: float


class Shed(msgspec.Struct, frozen=True, tag="shed", tag_field="kind"):
    """``count`` requests were rejected unread between ``since`` and ``until``: overload.

    Times are in seconds since 1970.
    """

    model: str
    version: int
    protocol: Protocol
    count: int
    since: float
    until: float


Record = Prediction | LabelRecord | Gap | Shed

_decoder: msgspec.json.Decoder[Record | Batch] = msgspec.json.Decoder(Record | Batch)


def decode_line(line: bytes) -> list[Record]:
    """Return the records of one line of a spool; a batch has one for each of its requests.

    Raises:
        msgspec.MsgspecError: the line is not a record. The caller counts it as lost.
    """
    try:
        decoded = _decoder.decode(line)
    except (UnicodeDecodeError, RecursionError) as error:  # a damaged line
        raise msgspec.DecodeError(str(error)) from error
    return list(decoded.predictions()) if isinstance(decoded, Batch) else [decoded]
