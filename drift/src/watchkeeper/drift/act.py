"""Acting on episodes: read what is known, store the next state, then do what it asks for.

Level-triggered: a turn that was cut off at any line is finished by the next one. One attempt is
one name, kept in the ledger before the platform is asked for a run of that name, and both take
a name only once.
"""

import logging
import time
from collections.abc import Callable

import msgspec

from watchkeeper.contracts.policies import DriftPolicy
from watchkeeper.drift.episodes import UNSETTLED, Facts, advanced, next_run, opened, replaced
from watchkeeper.drift.outcome import outcome_of
from watchkeeper.drift.statistics.streak import Streak, streak
from watchkeeper.drift.window import AHEAD_SECONDS, newest_time
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.episodes import (
    OPEN_STATES,
    Attempt,
    Episode,
    attempts,
    episodes,
    save_attempt,
    save_episode,
)
from watchkeeper.ledger.events import Event, emit
from watchkeeper.ledger.observations import count_labels
from watchkeeper.ledger.reports import reports
from watchkeeper.platforms import Platform, Run, RunState

MOST_TRIGGER = 255  # characters that the ledger keeps

log = logging.getLogger(__name__)


class Actor:
    """Acts on the episodes of a model, for the version in production."""

    def __init__(
        self,
        ledger: Ledger,
        platform: Platform,
        model: str,
        version: int,
        *,
        policy: DriftPolicy,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._platform = platform
        self._model = model
        self._version = version
        self._policy = policy
        self._clock = clock
        self._told: set[str] = set()  # events known to be stored: saves asking every turn

    def turn(self) -> None:
        """Take every unsettled episode at most one state further, or open one.

        Raises:
            SQLAlchemyError: the ledger does not answer; then nothing is asked of the platform.
            PlatformError: the platform did not take the run; the next turn asks again.
        """
        known = episodes(self._ledger, self._model)
        for episode in known:
            self._tell(episode)
        present = self._clock() + AHEAD_SECONDS
        now = newest_time(self._ledger, self._model, self._version, present)
        if now is None:
            return
        said = self._streak(present)
        settling = [episode for episode in known if episode.state in UNSETTLED]
        mine = [episode for episode in known if episode.version == self._version]
        if mine and mine[-1].state == "promoted" and mine[-1].attempt:
            settling.append(mine[-1])  # this version is back: was the promotion rolled back?
        moved = [episode for episode in settling if self._advance(episode, said, now)]
        if moved:
            return
        fresh = opened(known, said, now, self._policy, model=self._model, version=self._version)
        if fresh is not None:
            self._store(fresh)

    def _advance(self, episode: Episode, said: Streak, now: float) -> bool:
        """Take the step that is due; True when the episode is in another state then."""
        closed = replaced(episode, self._version, now)
        if closed is not None:
            self._store(closed)
            return True
        runs = self._runs(episode)
        following = advanced(episode, self._facts(episode, said, now, runs), self._policy)
        if following is None:
            if episode.state == "training":
                self._ask_for_run(episode, runs)
            return False
        if following.state == "training":
            if not self._take_attempt(episode, said, now):
                return False
            following = msgspec.structs.replace(following, attempt=episode.attempt + 1)
        self._store(following)
        if following.state == "training":
            self._ask_for_run(following, runs)
        return True

    def _streak(self, present: float) -> Streak:
        enough = max(self._policy.confirm, self._policy.clean_windows) + 20
        return streak(
            reports(self._ledger, self._model, self._version, newest=enough, until=present)
        )

    def _runs(self, episode: Episode) -> dict[str, RunState]:
        """Return the runs of the platform; only states that have to do with one need them."""
        needed = episode.state in OPEN_STATES
        return self._platform.runs(self._model) if needed else {}

    def _facts(
        self, episode: Episode, said: Streak, now: float, runs: dict[str, RunState]
    ) -> Facts:
        if episode.state in ("training", "promoted"):
            run = self._attempts(episode)[episode.attempt - 1].run
            outcome = outcome_of(self._ledger, self._model, run, runs.get(run))
            return Facts(now, said, outcome=outcome)
        if episode.state == "waiting-for-labels":
            labels, positives = count_labels(self._ledger, self._model, since=episode.onset)
            return Facts(now, said, labels, positives)
        return Facts(now, said)

    def _attempts(self, episode: Episode) -> list[Attempt]:
        """Return the attempts of an episode in the order in which they were taken."""
        mine = [a for a in attempts(self._ledger, self._model) if a.episode == episode.id]
        return sorted(mine, key=lambda attempt: int(attempt.run.rpartition("-a")[2]))

    def _take_attempt(self, episode: Episode, said: Streak, now: float) -> bool:
        """Keep the name of the next run in the ledger; False when another one took it first."""
        if len(self._attempts(episode)) > episode.attempt:
            return True  # a turn before this one came so far
        taken = [a.run for a in attempts(self._ledger, self._model)]
        run = next_run(self._model, self._version, [*taken, *self._platform.runs(self._model)])
        trigger = f"drift of {', '.join(said.features)}" if said.features else episode.reason
        attempt = Attempt(run, episode.id, self._model, trigger[:MOST_TRIGGER], now)
        save_attempt(self._ledger, attempt)
        return len(self._attempts(episode)) > episode.attempt

    def _ask_for_run(self, episode: Episode, runs: dict[str, RunState]) -> None:
        attempt = self._attempts(episode)[episode.attempt - 1]
        if attempt.run in runs:
            return
        run = Run(
            name=attempt.run,
            model=self._model,
            trigger=attempt.trigger,
            episode=episode.id,
            replaces=episode.version,
        )
        if self._platform.create_run(run):
            log.info("run %s started: %s", run.name, run.trigger)

    def _store(self, episode: Episode) -> None:
        save_episode(self._ledger, episode)
        log.info("episode %s: %s, %s", episode.id, episode.state, episode.reason)
        self._tell(episode)

    def _tell(self, episode: Episode) -> None:
        """Emit the event of the state an episode is in, unless it is stored already."""
        name = f"{episode.id}/{episode.state}/{episode.attempt}"
        if name in self._told:
            return
        taken = self._attempts(episode)[: episode.attempt]
        event = Event(
            id=name,
            model=episode.model,
            version=episode.version,
            kind="episode",
            time=episode.changed,
            reason=episode.reason,
            details={
                "episode": episode.id,
                "state": episode.state,
                "attempt": episode.attempt,
                "run": taken[-1].run if taken else None,
                "onset": episode.onset,
                "policy": msgspec.to_builtins(self._policy),
            },
        )
        emit(self._ledger, event)
        self._told.add(name)
