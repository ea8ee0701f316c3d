"""The episode controller: moves episodes to their next state and starts training runs.

It is level-triggered: each turn reads the state, compares and acts, so the next turn completes a
turn that was killed at any line. One attempt is one training run. The name of the run is stored in
the ledger before the platform creates the run, and both accept a name only once.
"""

import logging
import time
from collections.abc import Callable, Sequence

import msgspec

from watchkeeper.core.events import ConceptDrifted, EpisodeChanged, Event
from watchkeeper.core.names import next_run_name
from watchkeeper.core.policies import DriftPolicy
from watchkeeper.core.truths import Truth
from watchkeeper.drift.concept.status import ConceptStatus
from watchkeeper.drift.episodes import (
    UNSETTLED,
    ConceptDrift,
    LabelCount,
    ObservedState,
    close_replaced,
    drift_in_words,
    next_state,
    open_episode,
    promotions_without_improvement,
)
from watchkeeper.drift.run_outcome import run_outcome
from watchkeeper.drift.statistics.streak import Streak, newest_streak
from watchkeeper.drift.window import CLOCK_TOLERANCE_SECONDS, newest_time
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.counts import count_labelled_rows
from watchkeeper.ledger.episodes import (
    OPEN_STATES,
    Attempt,
    Episode,
    attempts,
    episodes,
    save_attempt,
    save_episode,
)
from watchkeeper.ledger.events import emit, history
from watchkeeper.ledger.observations import time_of_row
from watchkeeper.ledger.reports import reports
from watchkeeper.platforms import Platform, RunState, TrainingRun

MAXIMUM_TRIGGER = 255  # characters, the size of the column in the ledger
UNDECIDED_WINDOWS = 20  # undecided windows that a streak may contain

log = logging.getLogger(__name__)


class EpisodeController:
    """Controls the episodes of a model on behalf of the version in production."""

    def __init__(
        self,
        ledger: Ledger,
        platform: Platform,
        model: str,
        version: int,
        *,
        policy: DriftPolicy,
        truths: tuple[Truth, ...],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Create the controller.

        Args:
            ledger: the ledger.
            platform: where training runs are created.
            model: the model.
            version: its version in production.
            policy: the policy in force.
            truths: which labels count; there must be enough of each.
            clock: returns the time, seconds since 1970; requests of the future do not count.
        """
        self._ledger = ledger
        self._platform = platform
        self._model = model
        self._version = version
        self._policy = policy
        self._truths = truths
        self._clock = clock
        self._emitted: set[str] = set()  # ids of stored events: saves a query each turn

    def reconcile(self, concepts: Sequence[ConceptStatus] = ()) -> None:
        """Move every unsettled episode by at most one state, or open an episode.

        Args:
            concepts: what the labelled rows of the version show, for each head with a truth.

        Raises:
            LedgerError: the ledger does not answer; then no run is created.
            PlatformError: the platform did not create the run; the next call tries again.
        """
        known = episodes(self._ledger, self._model)
        for episode in known:
            self._emit(episode)
        until = self._clock() + CLOCK_TOLERANCE_SECONDS
        now = newest_time(self._ledger, self._model, self._version, until)
        if now is None:
            return
        streak = self._streak(until)
        drifted = [each for each in concepts if each.state == "drifted"]
        concept = _concept_drift(drifted)
        unsettled = [episode for episode in known if episode.state in UNSETTLED]
        own = [episode for episode in known if episode.version == self._version]
        if own and own[-1].state == "promoted" and own[-1].attempt:
            unsettled.append(own[-1])  # this version is in production again: after a rollback?
        self._emit_concepts(unsettled, drifted)
        present = ObservedState(now, streak, concept=concept)
        watched = {each.label for each in concepts if each.state == "watching"}
        changed = [
            episode
            for episode in unsettled
            if self._advance(
                episode,
                known,
                msgspec.structs.replace(present, recovered=self._drifted(episode) <= watched),
            )
        ]
        if changed:
            return
        new = open_episode(
            known,
            streak,
            now,
            self._policy,
            model=self._model,
            version=self._version,
            concept=concept,
        )
        if new is not None:
            self._save(new)
            self._emit_concepts([new], drifted)

    def _advance(self, episode: Episode, known: list[Episode], present: ObservedState) -> bool:
        """Do what the state of an episode requires; return True if the state has changed.

        ``present`` is what the rows show; the rest of it depends on the episode.
        """
        closed = close_replaced(episode, self._version, present.now)
        if closed is not None:
            self._save(closed)
            return True
        # Only open episodes depend on runs.
        runs = self._platform.runs(self._model) if episode.state in OPEN_STATES else {}
        observed = self._observe(episode, known, present, runs)
        following = next_state(episode, observed, self._policy)
        if following is None:
            if episode.state == "training":
                self._create_run(episode, runs)
            return False
        if following.state == "training":
            if not self._save_next_attempt(episode, present):
                return False
            following = msgspec.structs.replace(following, attempt=episode.attempt + 1)
        self._save(following)
        if following.state == "training":
            self._create_run(following, runs)
        return True

    def _streak(self, until: float) -> Streak:
        needed = max(self._policy.confirm, self._policy.clean_windows) + UNDECIDED_WINDOWS
        return newest_streak(
            reports(self._ledger, self._model, self._version, limit=needed, until=until)
        )

    def _observe(
        self,
        episode: Episode,
        known: list[Episode],
        present: ObservedState,
        runs: dict[str, RunState],
    ) -> ObservedState:
        if episode.state in ("training", "promoted"):
            run = self._attempts(episode)[episode.attempt - 1].run
            outcome = run_outcome(self._ledger, self._model, run, runs.get(run))
            return msgspec.structs.replace(present, outcome=outcome)
        too_soon = self._too_soon(episode, present.now)
        observed = msgspec.structs.replace(present, too_soon=too_soon)
        if episode.state == "waiting-for-labels":
            return msgspec.structs.replace(
                observed,
                labels=tuple(self._count(truth, episode.onset) for truth in self._awaited(present)),
                promotions=promotions_without_improvement(known, episode, self._policy),
            )
        return observed

    def _awaited(self, present: ObservedState) -> tuple[Truth, ...]:
        """Return the truths whose labels an episode waits for.

        A drift of the data concerns all heads. For a concept drift alone the labels of its heads
        are enough: they arrive, as it shows, and those of another head may never do.
        """
        labels = present.concept.labels
        if present.streak.drifted or not labels:
            return self._truths
        return tuple(truth for truth in self._truths if truth.name in labels)

    def _count(self, truth: Truth, since: float) -> LabelCount:
        rows, counts = count_labelled_rows(self._ledger, self._model, since=since, truth=truth)
        task, name = truth.task, truth.name if len(self._truths) > 1 else ""
        return LabelCount(rows, task.count_rare(counts) if task.outcomes else rows, task.rare, name)

    def _too_soon(self, episode: Episode, now: float) -> bool:
        """Return True while the last run that a drift has started is too near, in time or rows.

        Runs of people and of new code do not count: a storm is made of runs for drift.
        """
        # An attempt that a killed turn has stored is the one that is about to start.
        pending = {attempt.run for attempt in self._attempts(episode)[episode.attempt :]}
        times = [
            attempt.time
            for attempt in attempts(self._ledger, self._model)
            if attempt.episode and attempt.run not in pending and attempt.time <= now
        ]
        if not times:
            return False
        last, rows = max(times), self._policy.training_distance_rows
        return now - last < self._policy.training_distance or (
            rows > 0
            and time_of_row(self._ledger, self._model, self._version, rows, after=last) is None
        )

    def _attempts(self, episode: Episode) -> list[Attempt]:
        """Return the attempts of an episode, oldest first."""
        own = [a for a in attempts(self._ledger, self._model) if a.episode == episode.id]
        return sorted(own, key=lambda attempt: int(attempt.run.rpartition("-a")[2]))

    def _save_next_attempt(self, episode: Episode, present: ObservedState) -> bool:
        """Store the next attempt with the name of its run; False if the name is already used."""
        if len(self._attempts(episode)) > episode.attempt:
            return True  # a turn that was killed has stored it
        used = [a.run for a in attempts(self._ledger, self._model)]
        run = next_run_name(self._model, self._version, [*used, *self._platform.runs(self._model)])
        drift = drift_in_words(present.streak, present.concept) or episode.reason
        attempt = Attempt(run, episode.id, self._model, drift[:MAXIMUM_TRIGGER], present.now)
        save_attempt(self._ledger, attempt)
        return len(self._attempts(episode)) > episode.attempt

    def _create_run(self, episode: Episode, runs: dict[str, RunState]) -> None:
        attempt = self._attempts(episode)[episode.attempt - 1]
        if attempt.run in runs:
            return
        run = TrainingRun(
            name=attempt.run,
            model=self._model,
            trigger=attempt.trigger,
            episode=episode.id,
            replaces=episode.version,
        )
        if self._platform.create_run(run):
            log.info("training run %s created: %s", run.name, run.trigger)

    def _save(self, episode: Episode) -> None:
        save_episode(self._ledger, episode)
        log.info("episode %s is %s: %s", episode.id, episode.state, episode.reason)
        self._emit(episode)

    def _emit(self, episode: Episode) -> None:
        """Emit the event of an episode's state, unless it is stored."""
        name = f"{episode.id}/{episode.state}/{episode.attempt}"
        if name in self._emitted:
            return
        taken = self._attempts(episode)[: episode.attempt]
        event = Event(
            id=name,
            model=episode.model,
            version=episode.version,
            time=episode.changed,
            reason=episode.reason,
            details=EpisodeChanged(
                episode=episode.id,
                state=episode.state,
                attempt=episode.attempt,
                run=taken[-1].run if taken else None,
                onset=episode.onset,
                policy=msgspec.to_builtins(self._policy),
                cause=episode.cause,
            ),
        )
        emit(self._ledger, event)
        self._emitted.add(name)

    def _emit_concepts(self, unsettled: list[Episode], drifted: list[ConceptStatus]) -> None:
        """Emit the event of each head with a concept drift, once for each episode."""
        for episode in unsettled:
            for status in drifted if episode.version == self._version else ():
                name = f"{episode.id}/concept-drift/{status.label}"
                if name not in self._emitted:
                    emit(self._ledger, self._concept_event(name, episode, status))
                    self._emitted.add(name)

    def _drifted(self, episode: Episode) -> set[str]:
        """Return the truths of the heads that have drifted in an episode, by its events."""
        events = history(self._ledger, self._model, version=self._version, kind=ConceptDrifted)
        labels = {
            details.label
            for details in (event.details for event in events)
            if isinstance(details, ConceptDrifted) and details.episode == episode.id
        }
        if episode.cause == "concept" and not labels:  # a turn was killed before it stored them
            return {truth.name for truth in self._truths}
        return labels

    def _concept_event(self, name: str, episode: Episode, status: ConceptStatus) -> Event:
        baseline = status.baseline.mean.value if status.baseline else None
        return Event(
            id=name,
            model=self._model,
            version=self._version,
            time=max(status.found, episode.opened),
            reason=f"concept drift of {status.label}: {status.reason}",
            details=ConceptDrifted(
                episode=episode.id,
                label=status.label,
                loss=status.loss.value or 0.0,
                low=status.loss.low,
                high=status.loss.high,
                baseline=baseline or 0.0,
                limit=status.limit or 0.0,
                rows=status.rows,
                labelled=status.labelled,
                since=status.since,
                policy=msgspec.to_builtins(self._policy),
            ),
        )


def _concept_drift(drifted: Sequence[ConceptStatus]) -> ConceptDrift:
    """Return the concept drift of all heads that have one."""
    return ConceptDrift(
        labels=tuple(status.label for status in drifted),
        onset=min((status.since for status in drifted), default=0.0),
        reason="; ".join(status.reason for status in drifted),
    )
