"""Reading the ledger into evidence, a little each turn.

A window is read up to what all of the versions' spools have shipped, and only its new part each
turn; a record that comes later than that is found for as long as the parts overlap. What is kept
is bounded, the newest first to stay. Attempts that the gateway repeated elsewhere count as what
they were: otherwise its retries would hide every failure of a canary.
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable
from itertools import islice

import numpy as np

from watchkeeper.contracts.policies import RolloutPolicy
from watchkeeper.contracts.record import OK
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.observations import (
    Observation,
    labelled_rows,
    observations,
    reach,
)
from watchkeeper.ledger.store import shipped_until
from watchkeeper.rollout.evidence import Evidence, Numbers, Sample, Skew
from watchkeeper.rollout.offline import Row, Versions
from watchkeeper.rollout.state import State, Window

OVERLAP_SECONDS = 5.0
READ = 5_000  # requests of one version in one turn
READ_ROWS = 100_000  # and rows in them, but for the last request: one may have a thousand
KEPT = 20_000  # latencies of a protocol, scores of an output
SKEW_ROWS = 200
LABELLED = 2_000
LABEL_SECONDS = 5.0


class Collected:
    """What was read of one window so far."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self._forget()

    def _forget(self) -> None:
        self.read_until = self.window.since
        self.rows: list[Row] = []
        self._recent: set[tuple[str, int]] = set()
        self._latencies: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._errors: dict[str, int] = defaultdict(int)
        self._scores: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))

    def extend(self, ledger: Ledger, model: str, scores: tuple[str, ...], until: float) -> None:
        """Read on until ``until``; raises SQLAlchemyError, and is as it was then."""
        until = min(until, self.window.until)
        if self.window.since < until < self.read_until - OVERLAP_SECONDS:
            self._forget()  # a clock went back: requests come with times that were read before
        if until <= self.read_until:
            return
        since = max(self.window.since, self.read_until - OVERLAP_SECONDS)
        newest = reach(
            ledger,
            model,
            self.window.version,
            READ_ROWS,
            requests=READ,
            after=since,
            until=until,
            newest=True,
        )
        found = observations(
            ledger,
            model,
            self.window.version,
            since=since if newest is None else newest,
            until=until,
            newest=READ,
            superseded=True,
        )
        for observation in found:
            if (observation.id, observation.attempt) not in self._recent:
                self._add(observation, scores)
        self._recent = {(o.id, o.attempt) for o in found if o.time >= until - OVERLAP_SECONDS}
        self.read_until = until

    def sample(self, labelled: Numbers) -> Sample:
        """What was read, for the analysis."""
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
        for name in scores:
            values = observation.outputs.get(name, ())
            self._scores[name].extend(float("nan") if v is None else float(v) for v in values)
        for row in islice(range(observation.rows), SKEW_ROWS - len(self.rows)):
            self.rows.append((_cells(observation.inputs, row), _cells(observation.outputs, row)))


class Observer:
    """Evidence about one model's rollout."""

    def __init__(
        self,
        ledger: Ledger,
        versions: Versions,
        model: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.ledger = ledger
        self.versions = versions
        self.model = model
        self._clock = clock
        self._windows: dict[Window, Collected] = {}
        self._labels: tuple[tuple[Window, ...], float, list[Numbers]] | None = None
        self._skew: tuple[Window, Skew] | None = None

    def evidence(self, state: State, policy: RolloutPolicy) -> tuple[Evidence | None, str]:
        """Return what is to be judged now, or None and why there is nothing.

        Raises:
            SQLAlchemyError, RegistryError: the ledger, or the registry, does not answer.
        """
        if state.since is None or state.version is None or state.stable is None:
            return None, ""
        new = Window(state.version, state.since, float("inf"))
        stable = Window(state.stable, state.since, float("inf"))
        if state.phase == "watching":
            if state.window is None:
                return None, "no window was frozen before the promotion"
            stable = state.window
        elif state.phase != "canary":
            return None, ""
        until = shipped_until(self.ledger, self.model, {state.version, state.stable})
        if until is None:
            return None, "a sidecar has not shipped anything yet"
        until = min(until, self._clock())
        score = self.versions.manifest(state.version).answer.risk.score
        scores = self.versions.manifest(state.version).scores
        self._windows = {w: self._windows.get(w) or Collected(w) for w in (new, stable)}
        for collected in self._windows.values():
            collected.extend(self.ledger, self.model, scores, until)
        labels = self._labelled((new, stable), state, score)
        judged = state.phase == "canary"
        seconds = until - state.since
        return Evidence(
            new=self._windows[new].sample(labels[0]),
            stable=self._windows[stable].sample(labels[1]),
            seconds=seconds,
            skew=self._compare(new) if judged and seconds >= policy.step_seconds else None,
            gate_shift=self.versions.gate_shift(state.version) if judged else {},
        ), ""

    def _labelled(self, windows: tuple[Window, ...], state: State, score: str) -> list[Numbers]:
        """Labels are late: those of all steps count, and a look at them every few seconds."""
        if (
            self._labels is None
            or self._labels[0] != windows
            or self._clock() - self._labels[1] > LABEL_SECONDS
        ):
            since = [state.started if w.until == float("inf") else w.since for w in windows]
            found = [self._labels_of(w, s, score) for w, s in zip(windows, since, strict=True)]
            self._labels = windows, self._clock(), found
        return self._labels[2]

    def _labels_of(self, window: Window, since: float, score: str) -> Numbers:
        rows = labelled_rows(
            self.ledger,
            self.model,
            since=since,
            until=window.until,
            version=window.version,
            newest=LABELLED,
        )
        pairs = [
            (row.outputs[score], row.label) for row in rows if row.outputs.get(score) is not None
        ]
        return np.array(pairs, dtype=np.float64).reshape(-1, 2)

    def _compare(self, window: Window) -> Skew:
        """Compare once, and again when twice as many rows are there: a forest takes its time."""
        rows = self._windows[window].rows
        if self._skew is None or self._skew[0] != window or len(rows) > 2 * self._skew[1].rows:
            self._skew = window, self.versions.skew(window.version, rows)
        return self._skew[1]


def _cells(columns: dict[str, list[object]], row: int) -> dict[str, object]:
    return {name: values[row] for name, values in columns.items() if row < len(values)}
