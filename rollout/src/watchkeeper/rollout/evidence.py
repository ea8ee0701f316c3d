"""Evidence: what two versions did in a window of time. The checks judge it."""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.core.events import Verdict
from watchkeeper.core.tasks.base import Labelled, Task

Numbers = NDArray[np.float64]


class Sample(msgspec.Struct, frozen=True):
    """The requests of one version in a window.

    Attributes:
        version: the version.
        latencies: seconds of each answered request, of shape (requests,), by protocol.
        errors: the number of requests without an answer, by protocol.
        scores: one value per row, of shape (rows,), by the name of the score.
        labelled: labels and scores of the rows with a label, by the score of their head.
    """

    version: int
    latencies: dict[str, Numbers] = {}
    errors: dict[str, int] = {}
    scores: dict[str, Numbers] = {}
    labelled: dict[str, Labelled] = {}

    @property
    def protocols(self) -> set[str]:
        """The protocols of its requests."""
        return {p for p in (*self.latencies, *self.errors) if self.requests(p)}

    def answered(self, protocol: str) -> int:
        """Return the number of requests that it answered."""
        return len(self.latencies.get(protocol, ()))

    def failed(self, protocol: str) -> int:
        """Return the number of requests that it did not answer."""
        return self.errors.get(protocol, 0)

    def requests(self, protocol: str) -> int:
        """Return the number of all requests."""
        return self.answered(protocol) + self.failed(protocol)


class Skew(msgspec.Struct, frozen=True):
    """The largest difference between live scores and the version's own offline prediction.

    ``largest`` is over the same ``rows``, and NaN where one of the two is no number. ``error`` says
    why the version has no offline prediction. ``not_computed`` says why this process cannot compute
    one, which says nothing about the version.
    """

    rows: int
    largest: float
    error: str = ""
    not_computed: str = ""


class Evidence(msgspec.Struct, frozen=True):
    """The new version beside the version that it is compared with.

    Attributes:
        new: the new version.
        stable: the other version.
        seconds: the part of the window that the ledger has completely.
        skew: None until it is computed; it costs an offline prediction.
        gate_shift: the mean difference that the gate measured for each score, new minus stable.
        tasks: the tasks of the heads with a truth, which say what the labels are.
    """

    new: Sample
    stable: Sample
    seconds: float
    skew: Skew | None = None
    gate_shift: dict[str, float] = {}
    tasks: tuple[Task, ...] = ()


class Judgement(msgspec.Struct, frozen=True):
    """A verdict, its reason, and the numbers that it depends on, by the name of the check."""

    verdict: Verdict
    reason: str
    observations: dict[str, Any] = {}
