"""The episode controller: moves episodes to their next state and starts training runs.

It is level-triggered: each turn reads the state, compares and acts, so the next turn completes a
turn that was killed at any line. One attempt is one training run. The name of the run is stored in
the ledger before the platform creates the run, and both accept a name only once.
"""

import logging
import time
from collections.abc import Callable

import msgspec

from watchkeeper.core.events import EpisodeChanged, Event
from watchkeeper.core.names import next_run_name
from watchkeeper.core.policies import DriftPolicy
from watchkeeper.core.truths import Truth
from watchkeeper.drift.episodes import (
    UNSETTLED,
    LabelCount,
    ObservedState,
    close_replaced,
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
from watchkeeper.ledger.events import emit
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

    def reconcile(self) -> None:
        """Move every unsettled episode by at most one state, or open an episode.

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
        unsettled = [episode for episode in known if episode.state in UNSETTLED]
        own = [episode for episode in known if episode.version == self._version]
        if own and own[-1].state == "promoted" and own[-1].attempt:
            unsettled.append(own[-1])  # this version is in production again: after a rollback?
        changed = [episode for episode in unsettled if self._advance(episode, known, streak, now)]
        if changed:
            return
        new = open_episode(
            known, streak, now, self._policy, model=self._model, version=self._version
        )
        if new is not None:
            self._save(new)

    def _advance(self, episode: Episode, known: list[Episode], streak: Streak, now: float) -> bool:
        """Do what the state of an episode requires; return True if the state has changed."""
        closed = close_replaced(episode, self._version, now)
        if closed is not None:
            self._save(closed)
            return True
        # Only open episodes depend on runs.
        runs = self._platform.runs(self._model) if episode.state in OPEN_STATES else {}
        observed = self._observe(episode, known, streak, now, runs)
        following = next_state(episode, observed, self._policy)
        if following is None:
            if episode.state == "training":
                self._create_run(episode, runs)
            return False
        if following.state == "training":
            if not self._save_next_attempt(episode, streak, now):
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
        streak: Streak,
        now: float,
        runs: dict[str, RunState],
    ) -> ObservedState:
        if episode.state in ("training", "promoted"):
            run = self._attempts(episode)[episode.attempt - 1].run
            outcome = run_outcome(self._ledger, self._model, run, runs.get(run))
            return ObservedState(now, streak, outcome=outcome)
        observed = ObservedState(now, streak, too_soon=self._too_soon(episode, now))
        if episode.state == "waiting-for-labels":
            return msgspec.structs.replace(
                observed,
                labels=tuple(self._count(truth, episode.onset) for truth in self._truths),
                promotions=promotions_without_improvement(known, episode, self._policy),
            )
        return observed

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

    def _save_next_attempt(self, episode: Episode, streak: Streak, now: float) -> bool:
        """Store the next attempt with the name of its run; False if the name is already used."""
        if len(self._attempts(episode)) > episode.attempt:
            return True  # a turn that was killed has stored it
        used = [a.run for a in attempts(self._ledger, self._model)]
        run = next_run_name(self._model, self._version, [*used, *self._platform.runs(self._model)])
        trigger = f"drift of {', '.join(streak.features)}" if streak.features else episode.reason
        attempt = Attempt(run, episode.id, self._model, trigger[:MAXIMUM_TRIGGER], now)
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
            ),
        )
        emit(self._ledger, event)
        self._emitted.add(name)
