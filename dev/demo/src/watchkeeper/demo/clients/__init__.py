"""V2 clients of other projects, each with its own defaults, one row per request.

A kit is a project with an HTTP and a gRPC client. Both kits register the protocol's messages under
the same names, which protobuf allows only once in a process. So each kit is a module of its own and
runs in a process of its own.
"""

import importlib
import typing
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import triton_to_np_dtype

from watchkeeper.core.record import Protocol
from watchkeeper.core.signature import Datatype

TIMEOUT: Final = 30.0  # seconds; the gateway gives up after the same time
CLIENT_HEADER: Final = "x-watchkeeper-client"
KEY_HEADER: Final = "x-api-key"
KITS: Final = ("triton", "kserve")

Row = dict[str, Any]
Columns = tuple[tuple[str, Datatype], ...]  # names in order, with their V2 datatypes


class Target(msgspec.Struct, frozen=True):
    """Where requests go, and for which model.

    ``address`` is host and port of the gateway, ``host`` the name by which it finds the model.
    ``key`` is the API key; empty if the gateway needs none.
    """

    address: str
    host: str
    model: str
    columns: Columns
    key: str = ""

    def headers(self, client: str) -> dict[str, str]:
        """Return the headers, or the gRPC metadata, of each request of a client."""
        return {CLIENT_HEADER: client, **({KEY_HEADER: self.key} if self.key else {})}


class Reply(msgspec.Struct, frozen=True):
    """The answer for one row, with the version that gave it and its prediction id."""

    outputs: dict[str, Any]
    version: int
    prediction: str


class Client(typing.Protocol):
    """One client. ``infer`` raises the errors of the wrapped client."""

    name: str
    protocol: Protocol

    async def infer(self, row: Row, subject: str) -> Reply:
        """Request a prediction for one row about a subject."""

    async def close(self) -> None:
        """Close the connections."""


def open_clients(kit: str, target: Target) -> list[Client]:
    """Return the HTTP and the gRPC client of a kit."""
    module = importlib.import_module(f"{__name__}.{kit}")
    return [kind(target) for kind in module.CLIENTS]


def tensors(kind: Any, columns: Columns, row: Row) -> list[Any]:
    """Convert one row to tensors of the client's type ``kind``."""
    converted = []
    for name, datatype in columns:
        tensor = kind(name, [1], datatype)
        # The Triton clients take text as bytes, the KServe SDK takes either.
        value = row[name].encode() if datatype == "BYTES" else row[name]
        tensor.set_data_from_numpy(np.array([value], dtype=triton_to_np_dtype(datatype)))
        converted.append(tensor)
    return converted


def first_value(column: NDArray[Any]) -> Any:
    """Return the only value of an output, text decoded."""
    value = column.reshape(-1)[0]
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value


def reply_of(outputs: dict[str, Any], parameters: Any) -> Reply:
    """Build a reply from outputs and the parameters of a gRPC response."""
    return Reply(
        outputs, int(parameters["version"].string_param), parameters["prediction_id"].string_param
    )
