"""Evidence: what two versions did in a window, as the analysis takes it. No database here."""

from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Result = Literal["pass", "fail", "inconclusive"]


class Sample(msgspec.Struct, frozen=True):
    """What one version was asked, and how it did.

    ``latencies`` in seconds, of answered requests, and ``errors``, requests that were not, by
    protocol; ``scores`` one array a score, one value a row; ``labelled`` (score, label) pairs of
    rows whose truth is known, shape (rows, 2).
    """

    version: int
    latencies: dict[str, Numbers] = {}
    errors: dict[str, int] = {}
    scores: dict[str, Numbers] = {}
    labelled: Numbers = msgspec.field(default_factory=lambda: np.empty((0, 2)))

    @property
    def protocols(self) -> set[str]:
        """The protocols it was asked by."""
        return {p for p in (*self.latencies, *self.errors) if self.asked(p)}

    def answered(self, protocol: str) -> int:
        """Count the requests it answered."""
        return len(self.latencies.get(protocol, ()))

    def failed(self, protocol: str) -> int:
        """Count the requests it did not answer."""
        return self.errors.get(protocol, 0)

    def asked(self, protocol: str) -> int:
        """Count the requests."""
        return self.answered(protocol) + self.failed(protocol)


class Skew(msgspec.Struct, frozen=True):
    """The largest difference between live scores and the version's offline prediction of the
    same ``rows``; NaN where one of the two is no number. ``broken`` tells why it has no offline
    form that could be asked.
    """

    rows: int
    largest: float
    broken: str = ""


class Evidence(msgspec.Struct, frozen=True):
    """The new version beside the one it is compared with.

    ``seconds`` is how much of the window is complete in the ledger; ``gate_shift`` the mean
    difference of each score, new minus stable, that the gate measured.
    """

    new: Sample
    stable: Sample
    seconds: float
    skew: Skew | None = None
    gate_shift: dict[str, float] = {}


class Judgement(msgspec.Struct, frozen=True):
    """A verdict, why, and the numbers it was made from."""

    verdict: Result
    reason: str
    observations: dict[str, Any] = {}
