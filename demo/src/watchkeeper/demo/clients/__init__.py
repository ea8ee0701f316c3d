"""The clients of V2 that nobody here wrote, each with its own defaults, one row a request.

Both kits register the protocol's messages under the same names, and protobuf allows that only
once in a process: so each kit is a module of its own, and has a process of its own.
"""

import importlib
from typing import Any, Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.demo.machines import MEASUREMENTS

TIMEOUT: Final = 30.0  # seconds; as long as the gateway tries
CLIENT_HEADER: Final = "x-watchkeeper-client"
OUTPUTS: Final = ("failure_probability", "failure", "risk_level")
KITS: Final = ("triton", "kserve")

Row = dict[str, Any]


class Reply(msgspec.Struct, frozen=True):
    """What a client got for its row."""

    outputs: dict[str, Any]
    version: int
    prediction: str


class Client(Protocol):
    """One of the clients; ``infer`` raises whatever the client raises."""

    name: str
    protocol: str

    async def infer(self, row: Row) -> Reply:
        """Ask for one row."""

    async def close(self) -> None:
        """Close the connections."""


def open_clients(kit: str, address: str, host: str, model: str) -> list[Client]:
    """Return the HTTP and the gRPC client of a kit, for the model behind ``host``."""
    module = importlib.import_module(f"{__name__}.{kit}")
    return [kind(address, host, model) for kind in module.CLIENTS]


def tensors(kind: Any, row: Row) -> list[Any]:
    """Make a client's own tensors of one row; numbers are FP64, the type is BYTES."""
    made = []
    for name in MEASUREMENTS:
        text = name == "type"
        tensor = kind(name, [1], "BYTES" if text else "FP64")
        # The Triton clients take text as bytes, the KServe SDK takes either.
        value = np.array([row[name].encode()], dtype=object) if text else np.array([row[name]])
        tensor.set_data_from_numpy(value)
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
