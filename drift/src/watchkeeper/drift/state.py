"""What a sidecar tells about itself; its threads write, its server reads."""

import time
from typing import Any, Literal, get_args

import msgspec

Part = Literal["ledger", "shipping", "watch", "keeper"]  # what can fail; "ledger" for the shipping
PARTS: tuple[Part, ...] = get_args(Part)


class State(msgspec.Struct):
    """Counts since the process started, except ``lost``, ``torn`` and ``shed``, which the spool
    keeps.

    ``trouble`` says why shipping is held, empty while it is not; ``shipped_until`` is in seconds
    since 1970; ``alive`` is the monotonic time of the last sign of life of the shipping.
    """

    model: str
    version: int
    shipped: int = 0
    lost: int = 0
    torn: int = 0
    shed: int = 0
    errors: dict[Part, int] = msgspec.field(default_factory=lambda: dict.fromkeys(PARTS, 0))
    shipped_until: float = 0.0
    trouble: str = "nothing has been shipped yet"
    alive: float = msgspec.field(default_factory=time.monotonic)
    view: dict[str, Any] = {}

    def lag(self) -> float:
        """Return how many seconds ago everything written was known to be in the ledger."""
        return max(0.0, time.time() - self.shipped_until) if self.shipped_until else 0.0
