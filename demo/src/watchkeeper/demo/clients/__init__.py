"""The clients of V2 that nobody here wrote, each with its own defaults, one row a request.

Both kits register the protocol's messages under the same names, and protobuf allows that only
once in a process: so each kit is a module of its own, and has a process of its own.
"""

import importlib
from typing import Any, Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

TIMEOUT: Final = 30.0  # seconds; as long as the gateway tries
CLIENT_HEADER: Final = "x-watchkeeper-client"
KEY_HEADER: Final = "x-api-key"
KITS: Final = ("triton", "kserve")

Row = dict[str, Any]
Columns = tuple[tuple[str, str], ...]  # names in order, with their V2 datatypes
KINDS: Final = {"BYTES": object, "FP64": np.float64, "INT64": np.int64}


class Target(msgspec.Struct, frozen=True):
    """What is asked and where: any gateway, by host and port; ``host`` says which model is meant.

    ``key`` is what the gateway lets this client in for, if it asks for one.
    """

    address: str
    host: str
    model: str
    columns: Columns
    key: str = ""

    def headers(self, client: str) -> dict[str, str]:
        """Return what goes with each request of a client, as headers or metadata."""
        return {CLIENT_HEADER: client, **({KEY_HEADER: self.key} if self.key else {})}


class Reply(msgspec.Struct, frozen=True):
    """What a client got for its row."""

    outputs: dict[str, Any]
    version: int
    prediction: str


class Client(Protocol):
    """One of the clients; ``infer`` raises whatever the client raises."""

    name: str
    protocol: str

    async def infer(self, row: Row, subject: str) -> Reply:
        """Ask for one row, which is about that machine, vehicle or whatever it may be."""

    async def close(self) -> None:
        """Close the connections."""


def open_clients(kit: str, target: Target) -> list[Client]:
    """Return the HTTP and the gRPC client of a kit."""
    module = importlib.import_module(f"{__name__}.{kit}")
    return [kind(target) for kind in module.CLIENTS]


def tensors(kind: Any, columns: Columns, row: Row) -> list[Any]:
    """Make a client's own tensors of one row."""
    made = []
    for name, datatype in columns:
        tensor = kind(name, [1], datatype)
        # The Triton clients take text as bytes, the KServe SDK takes either.
        value = row[name].encode() if datatype == "BYTES" else row[name]
        tensor.set_data_from_numpy(np.array([value], dtype=KINDS[datatype]))
        made.append(tensor)
    return made


def first_value(column: NDArray[Any]) -> Any:
    """Return the only value of an output, text decoded."""
    value = column.reshape(-1)[0]
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value


def from_messages(outputs: dict[str, Any], parameters: Any) -> Reply:
    """Make a reply of outputs and the parameters of a gRPC response."""
    return Reply(
        outputs, int(parameters["version"].string_param), parameters["prediction_id"].string_param
    )
