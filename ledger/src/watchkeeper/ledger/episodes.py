"""Episodes of drift and their training attempts."""

from typing import Final

import msgspec
from sqlalchemy import select

from watchkeeper.core.events import EpisodeCause, EpisodeState
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.database import Ledger
from watchkeeper.ledger.idempotent_writes import TEXT_LENGTH, fit_text, insert_once, upsert

OPEN_STATES: Final[tuple[EpisodeState, ...]] = ("waiting-for-labels", "training", "cool-down")


class Episode(msgspec.Struct, frozen=True):
    """One period of drift of one version.

    Attributes:
        id: The name of the episode, for example "pump-failure-v1-e1".
        model: The model.
        version: The version whose requests, or whose error on them, have drifted.
        state: The present state. The episode is open in the states ``OPEN_STATES``.
        onset: The record time of the first drifted row, in seconds since 1970.
        opened: The record time at which the episode opened.
        changed: The record time of the last change of the state.
        attempt: The number of training runs that the episode has requested.
        reason: Why the episode is in this state.
        cause: What has opened it.
    """

    id: str
    model: str
    version: int
    state: EpisodeState
    onset: float
    opened: float
    changed: float
    attempt: int
    reason: str
    cause: EpisodeCause = "data"


class Attempt(msgspec.Struct, frozen=True):
    """One requested training run.

    ``run`` is the name of the run and of its Job, so an attempt starts one run only. ``episode`` is
    None for a run that no episode has requested. ``time`` is in seconds since 1970.
    """

    run: str
    episode: str | None
    model: str
    trigger: str
    time: float


def save_episode(ledger: Ledger, episode: Episode) -> None:
    """Store the present state of an episode."""
    values = {**msgspec.structs.asdict(episode), "reason": fit_text(episode.reason, TEXT_LENGTH)}
    with ledger.write() as connection:
        upsert(connection, t.episodes, values)


def episodes(ledger: Ledger, model: str) -> list[Episode]:
    """Return all episodes of a model, oldest first."""
    query = select(t.episodes).where(t.episodes.c.model == model).order_by(t.episodes.c.opened)
    with ledger.read() as connection:
        return [Episode(**row._mapping) for row in connection.execute(query)]


def save_attempt(ledger: Ledger, attempt: Attempt) -> None:
    """Store an attempt before its run starts. Storing one twice changes nothing."""
    with ledger.write() as connection:
        insert_once(connection, t.attempts, msgspec.structs.asdict(attempt))


def attempts(ledger: Ledger, model: str) -> list[Attempt]:
    """Return all attempts of a model, oldest first."""
    query = select(t.attempts).where(t.attempts.c.model == model).order_by(t.attempts.c.time)
    with ledger.read() as connection:
        return [Attempt(**row._mapping) for row in connection.execute(query)]
