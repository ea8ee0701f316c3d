"""What the ledger tells while the story plays: every decision, and whether it is a wrong turn."""

import asyncio
from typing import Final

from watchkeeper.demo import ledger
from watchkeeper.demo.display import Display
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import Event

POLL_SECONDS: Final = 0.25
SLOW_VERSION: Final = 3


class WrongTurnError(RuntimeError):
    """The loop went another way than the story."""


class Chronicle:
    """The events of one model, shown as they come. ``events`` is replaced as a whole."""

    def __init__(self, database: Ledger, model: str, display: Display) -> None:
        self.ledger = database
        self.model = model
        self.events: list[Event] = []
        self._display = display
        self._shown: set[str] = set()

    async def follow(self) -> None:
        """Read and show for as long as it is let."""
        while True:
            await self.read()
            await asyncio.sleep(POLL_SECONDS)

    async def read(self) -> None:
        """Read all there is now."""
        self.events = await asyncio.to_thread(ledger.events, self.ledger, self.model)
        for event in self.events:
            if event.id not in self._shown:
                self._shown.add(event.id)
                self._display.event(event)

    def versions(self, kind: str) -> list[int]:
        """Return the versions of all events of a kind, in order."""
        return [e.version for e in self.events if e.kind == kind and e.version is not None]

    def episodes(self) -> set[str]:
        """Return the ids of the episodes of drift."""
        return {e.details["episode"] for e in self.events if e.kind == "episode"}

    def trains(self) -> bool:
        """Tell whether an episode has asked for a training run."""
        return any(e.kind == "episode" and e.details["state"] == "training" for e in self.events)

    def quiet_windows(self, version: int) -> int:
        """Count the windows of a version that were examined and not drifted."""
        return ledger.count_reports(self.ledger, self.model, version, drifted=False)

    def has_all(self, answers: int, labels: int) -> bool:
        """Tell whether that many answers and labels have arrived."""
        return (
            ledger.count_predictions(self.ledger, self.model) >= answers
            and ledger.count_labels(self.ledger, self.model) >= labels
        )

    def check(self) -> None:
        """Make sure that nothing happened that the story cannot recover from.

        Raises:
            WrongTurnError: it did; waiting for a deadline would not help.
        """
        for event in self.events:
            rolled_back = event.kind == "rolled-back" and event.version != SLOW_VERSION
            if event.kind == "gate-rejected" or rolled_back:
                raise WrongTurnError(f"version {event.version} was {event.kind}: {event.reason}")
            if event.kind == "episode" and event.details["state"] in ("cool-down", "given-up"):
                raise WrongTurnError(f"the episode's training came to nothing: {event.reason}")
