"""Episodes of drift and their training attempts."""

from typing import Literal

import msgspec
from sqlalchemy import select

from watchkeeper.ledger import tables as t
from watchkeeper.ledger.database import Ledger
from watchkeeper.ledger.once import TEXT, clean, store_latest, store_new

State = Literal["waiting-for-labels", "training", "cool-down", "promoted", "given-up", "clean"]
OPEN_STATES = ("waiting-for-labels", "training", "cool-down")


class Episode(msgspec.Struct, frozen=True):
    """One period of drift of one version.

    ``onset`` is the record time of the first drifted row, ``opened`` and ``changed`` are record
    times too. ``attempt`` counts the trainings asked for so far.
    """

    id: str
    model: str
    version: int
    state: State
    onset: float
    opened: float
    changed: float
    attempt: int
    reason: str


class Attempt(msgspec.Struct, frozen=True):
    """One training run that somebody asked for; ``run`` is also the name of its Job."""

    run: str
    episode: str | None
    model: str
    trigger: str
    time: float


def save_episode(ledger: Ledger, episode: Episode) -> None:
    """Store an episode as it stands now."""
    values = {**msgspec.structs.asdict(episode), "reason": clean(episode.reason, TEXT)}
    with ledger.begin() as connection:
        store_latest(connection, t.episodes, values)


def episodes(ledger: Ledger, model: str) -> list[Episode]:
    """Return all episodes of a model, oldest first."""
    query = select(t.episodes).where(t.episodes.c.model == model).order_by(t.episodes.c.opened)
    with ledger.read() as connection:
        return [Episode(**row._mapping) for row in connection.execute(query)]


def save_attempt(ledger: Ledger, attempt: Attempt) -> None:
    """Store an attempt before its run is created; harmless when it is stored already."""
    with ledger.begin() as connection:
        store_new(connection, t.attempts, msgspec.structs.asdict(attempt))


def attempts(ledger: Ledger, model: str) -> list[Attempt]:
    """Return all attempts of a model, oldest first."""
    query = select(t.attempts).where(t.attempts.c.model == model).order_by(t.attempts.c.time)
    with ledger.read() as connection:
        return [Attempt(**row._mapping) for row in connection.execute(query)]
