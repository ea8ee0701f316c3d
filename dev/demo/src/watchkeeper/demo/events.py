"""The events of one model during the demonstration, shown as they come."""

import asyncio
from typing import Final

from watchkeeper.core.events import (
    EpisodeChanged,
    Event,
    EventDetails,
    GateRejected,
    RolledBack,
)
from watchkeeper.demo.display import Display
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.counts import count_answered, count_labels, count_reports
from watchkeeper.ledger.events import history

POLL_SECONDS: Final = 0.25
SLOW_VERSION: Final = 3
MAX_EVENTS: Final = 10_000


class UnexpectedEventError(RuntimeError):
    """The loop took a decision that the demonstration does not expect."""


class EventLog:
    """Reads the events of one model from the ledger. ``events`` is replaced by each read."""

    def __init__(self, ledger: Ledger, model: str, display: Display) -> None:
        self.ledger = ledger
        self.model = model
        self.events: list[Event] = []
        self._display = display
        self._shown: set[str] = set()

    async def follow(self) -> None:
        """Read and show events until the task is cancelled."""
        while True:
            await self.read()
            await asyncio.sleep(POLL_SECONDS)

    async def read(self) -> None:
        """Read all events, and show the new ones."""
        self.events = await asyncio.to_thread(history, self.ledger, self.model, limit=MAX_EVENTS)
        for event in self.events:
            if event.id not in self._shown:
                self._shown.add(event.id)
                self._display.event(event)

    def versions(self, kind: type[EventDetails]) -> list[int]:
        """Return the versions of all events of a kind, in order."""
        return [
            event.version
            for event in self.events
            if isinstance(event.details, kind) and event.version is not None
        ]

    def episodes(self) -> set[str]:
        """Return the ids of the episodes of drift."""
        return {
            event.details.episode
            for event in self.events
            if isinstance(event.details, EpisodeChanged)
        }

    def has_episode_training(self) -> bool:
        """Return whether an episode has started a training run."""
        return any(
            isinstance(event.details, EpisodeChanged) and event.details.state == "training"
            for event in self.events
        )

    def count_windows(self, version: int, *, drifted: bool | None = None) -> int:
        """Count the examined windows of a version; with ``drifted`` those with that result."""
        return count_reports(self.ledger, self.model, version, drifted=drifted)

    def count_records(self) -> tuple[int, int]:
        """Count the answered requests and the labels in the ledger."""
        return (
            count_answered(self.ledger, self.model),
            count_labels(self.ledger, self.model),
        )

    def check(self) -> None:
        """Check that no event makes the expected end impossible.

        Raises:
            UnexpectedEventError: there is such an event; waiting longer does not help.
        """
        for event in self.events:
            match event.details:
                case GateRejected():
                    raise UnexpectedEventError(
                        f"the gate has rejected version {event.version}: {event.reason}"
                    )
                case RolledBack() if event.version != SLOW_VERSION:
                    raise UnexpectedEventError(
                        f"version {event.version} was rolled back: {event.reason}"
                    )
                case EpisodeChanged(state="cool-down" | "given-up"):
                    raise UnexpectedEventError(
                        f"the training run of the episode has failed: {event.reason}"
                    )
