"""Reading the ledger into evidence, a part each turn.

A window is read up to the time that the spools of both versions are shipped to, and each turn reads
only the new part. Two parts overlap, so a record that is shipped late is found. The amount that is
kept is bounded; the newest values stay. Attempts that the gateway repeated on another version count
for the version that failed. Otherwise the retries would hide every failure of a canary.

Synthetic requests show errors, latency and skew like any other. Their scores and labels do not
count, because a load test has other scores than the traffic that the gate has seen.
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable
from itertools import islice
from typing import Final

import numpy as np

from watchkeeper.core.policies import RolloutPolicy
from watchkeeper.core.record import OK
from watchkeeper.core.tasks.base import Labelled
from watchkeeper.core.truths import Truth
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.observations import (
    Observation,
    labelled_rows,
    observations,
    scored_labels,
    time_of_row,
)
from watchkeeper.ledger.spools import shipped_until
from watchkeeper.rollout.evidence import Evidence, Sample, Skew
from watchkeeper.rollout.state import RolloutState, Window
from watchkeeper.rollout.version_cache import Content, Row, VersionCache

OVERLAP_SECONDS: Final = 5.0
READ_REQUESTS: Final = 5_000  # of one version in one turn
READ_ROWS = 100_000  # of these requests, except for the last request
KEPT_VALUES: Final = 20_000  # latencies per protocol, values per score
SKEW_ROWS: Final = 200
LABELLED_ROWS: Final = 2_000
LABEL_SECONDS: Final = 5.0  # labels are read again after this time


class WindowReader:
    """Collects the requests of one version in one window."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self._reset()

    def _reset(self) -> None:
        self.read_until = self.window.since
        self.rows: list[Row] = []  # for the skew, at most SKEW_ROWS
        self._recent: set[tuple[str, int]] = set()
        self._latencies: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=KEPT_VALUES))
        self._errors: dict[str, int] = defaultdict(int)
        self._scores: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=KEPT_VALUES))

    def extend(self, ledger: Ledger, model: str, scores: tuple[str, ...], until: float) -> None:
        """Read the requests up to the time ``until``.

        Raises:
            LedgerError: the ledger does not answer. The reader is unchanged.
        """
        until = min(until, self.window.until)
        if self.window.since < until < self.read_until - OVERLAP_SECONDS:
            self._reset()  # a clock went back: new requests have times that were read before
        if until <= self.read_until:
            return
        since = max(self.window.since, self.read_until - OVERLAP_SECONDS)
        newest = time_of_row(
            ledger,
            model,
            self.window.version,
            READ_ROWS,
            requests=READ_REQUESTS,
            after=since,
            until=until,
            newest_first=True,
            synthetic=True,
        )
        found = observations(
            ledger,
            model,
            self.window.version,
            since=since if newest is None else newest,
            until=until,
            limit=READ_REQUESTS,
            superseded=True,
            synthetic=True,
        )
        for observation in found:
            if (observation.id, observation.attempt) not in self._recent:
                self._add(observation, scores)
        self._recent = {(o.id, o.attempt) for o in found if o.time >= until - OVERLAP_SECONDS}
        self.read_until = until

    def sample(self, labelled: dict[str, Labelled]) -> Sample:
        """Return what was read, with the labelled rows of the version by the head's score."""
        return Sample(
            version=self.window.version,
            latencies={p: np.array(values) for p, values in self._latencies.items()},
            errors=dict(self._errors),
            scores={name: np.array(values) for name, values in self._scores.items()},
            labelled=labelled,
        )

    def _add(self, observation: Observation, scores: tuple[str, ...]) -> None:
        if observation.status != OK:
            self._errors[observation.protocol] += 1
            return
        self._latencies[observation.protocol].append(observation.latency)
        for name in () if observation.synthetic else scores:
            values = observation.outputs.get(name, ())
            self._scores[name].extend(float("nan") if v is None else float(v) for v in values)
        for row in islice(range(observation.rows), SKEW_ROWS - len(self.rows)):
            self.rows.append((_cells(observation.inputs, row), _cells(observation.outputs, row)))


class EvidenceReader:
    """Reads the evidence about the rollout of one model."""

    def __init__(
        self,
        ledger: Ledger,
        versions: VersionCache,
        model: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.ledger = ledger
        self.versions = versions
        self.model = model
        self._clock = clock
        self._readers: dict[Window, WindowReader] = {}
        self._labels: tuple[tuple[Window, ...], float, list[dict[str, Labelled]]] | None = None
        self._skew: tuple[Window, Skew] | None = None

    def read(
        self, state: RolloutState, policy: RolloutPolicy, digest: str
    ) -> tuple[Evidence | None, str]:
        """Return the evidence in a canary step or a watch, or None and why there is none.

        The reason is "" where the phase needs no evidence. ``digest`` is the content of the version
        that is rolled out; "" if it is not known.

        Raises:
            LedgerError: the ledger does not answer.
            BrokenVersionError: the version's files are not as its manifest says.
        """
        if state.since is None or state.version is None or state.stable is None:
            return None, ""
        new = Window(state.version, state.since, float("inf"))
        stable = Window(state.stable, state.since, float("inf"))
        if state.phase == "watching":
            if state.baseline is None:
                return None, "the state has no window from before the promotion"
            stable = state.baseline
        elif state.phase != "canary":
            return None, ""
        until = shipped_until(self.ledger, self.model, {state.version, state.stable})
        if until is None:
            return None, "a sidecar has not shipped anything yet"
        until = min(until, self._clock())
        content = Content(state.version, digest)
        manifest = self.versions.manifest(content)
        self._readers = {w: self._readers.get(w) or WindowReader(w) for w in (new, stable)}
        for reader in self._readers.values():
            reader.extend(self.ledger, self.model, manifest.scores, until)
        labels = self._labelled((new, stable), state, manifest.truths)
        is_step = state.phase == "canary"
        seconds = until - state.since
        complete = is_step and seconds >= policy.step_seconds
        return Evidence(
            new=self._readers[new].sample(labels[0]),
            stable=self._readers[stable].sample(labels[1]),
            seconds=seconds,
            skew=self._compare(new, content) if complete else None,
            gate_shift=self.versions.gate_shift(content) if is_step else {},
            tasks=tuple(truth.task for truth in manifest.truths),
        ), ""

    def _labelled(
        self, windows: tuple[Window, ...], state: RolloutState, truths: tuple[Truth, ...]
    ) -> list[dict[str, Labelled]]:
        """Return the labelled rows of each window, by the head's score, from a short cache.

        Labels are late, so the labels of all steps of the rollout count.
        """
        if (
            self._labels is None
            or self._labels[0] != windows
            or self._clock() - self._labels[1] > LABEL_SECONDS
        ):
            since = [state.started if w.until == float("inf") else w.since for w in windows]
            found = [
                {truth.task.head.score: self._read_labels(window, start, truth) for truth in truths}
                for window, start in zip(windows, since, strict=True)
            ]
            self._labels = windows, self._clock(), found
        return self._labels[2]

    def _read_labels(self, window: Window, since: float, truth: Truth) -> Labelled:
        rows = labelled_rows(
            self.ledger,
            self.model,
            since=since,
            until=window.until,
            version=window.version,
            limit=LABELLED_ROWS,
            truth=truth,
        )
        return scored_labels(rows, truth.task)

    def _compare(self, window: Window, content: Content) -> Skew:
        """Return the skew. It is slow, so it is computed again only for twice as many rows."""
        rows = self._readers[window].rows
        if self._skew is None or self._skew[0] != window or len(rows) > 2 * self._skew[1].rows:
            self._skew = window, self.versions.skew(content, rows)
        return self._skew[1]


def _cells(columns: dict[str, list[object]], row: int) -> dict[str, object]:
    return {name: values[row] for name, values in columns.items() if row < len(values)}
