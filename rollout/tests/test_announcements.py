"""The events of all components are announced once, where people look first."""

from typing import Any

import pytest

from watchkeeper.core.events import (
    EpisodeChanged,
    EpisodeState,
    Event,
    EventDetails,
    Promoted,
    RolledBack,
    RowsRemoved,
)
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import emit
from watchkeeper.platforms import Announcement, PlatformError
from watchkeeper.rollout.announcements import KEPT_SECONDS, Announcements
from watchkeeper.rollout.metrics import RolloutMetrics

NAME = "pump-failure"
NOW = 100_000.0


class Board:
    """Shows announcements by their id."""

    def __init__(self) -> None:
        self.shown: list[Announcement] = []
        self.up = self.has_route = True

    def announce(self, announcement: Announcement) -> bool:
        if not self.up:
            raise PlatformError("the platform is down")
        if self.has_route:
            self.shown.append(announcement)
        return self.has_route


def store(ledger: Ledger, name: str, details: EventDetails, time: float = NOW) -> None:
    emit(ledger, Event(name, NAME, 3, time, f"because of {name}", details))


def announcements(board: Board, ledger: Ledger) -> Announcements:
    platform: Any = board
    clock = lambda: NOW  # noqa: E731
    return Announcements(NAME, platform, ledger, RolloutMetrics(), clock=clock, monotonic=clock)


def test_an_event_is_announced_once_with_its_reason(ledger: Ledger) -> None:
    board = Board()
    controller = announcements(board, ledger)
    store(ledger, "first", Promoted())
    for _ in range(2):
        controller.turn()
    store(ledger, "second", RolledBack(to=2, percent=10), NOW + 1)
    controller.turn()
    first = Announcement("first", NAME, 3, "Promoted", "because of first", warning=False, time=NOW)
    assert board.shown[0] == first
    assert [(each.reason, each.warning) for each in board.shown] == [
        ("Promoted", False),
        ("RolledBack", True),
    ]


@pytest.mark.parametrize(
    ("state", "warning"), [("waiting-for-labels", True), ("promoted", False), ("given-up", True)]
)
def test_a_drift_that_needs_attention_is_a_warning(
    ledger: Ledger, state: EpisodeState, warning: bool
) -> None:
    board = Board()
    episode = EpisodeChanged(episode="e1", state=state, attempt=1, run=None, onset=1.0, policy={})
    store(ledger, "drift", episode)
    announcements(board, ledger).turn()
    assert [(each.reason, each.warning) for each in board.shown] == [("EpisodeChanged", warning)]


def test_old_events_and_those_of_retention_are_not_announced(ledger: Ledger) -> None:
    board = Board()
    store(ledger, "old", Promoted(), NOW - KEPT_SECONDS - 1)
    counts = {"predictions": 1, "superseded": 0, "labels": 0, "gaps": 0}
    store(ledger, "removed", RowsRemoved(day="2026-11-30", policy={}, **counts))
    announcements(board, ledger).turn()
    assert board.shown == []


def test_nothing_is_lost_while_there_is_no_platform_or_no_route(ledger: Ledger) -> None:
    board = Board()
    store(ledger, "first", Promoted())
    board.up = False
    assert announcements(board, ledger).turn() is None
    board.up, board.has_route = True, False
    controller = announcements(board, ledger)
    controller.turn()
    assert board.shown == []
    board.has_route = True
    controller.turn()
    assert [each.id for each in board.shown] == ["first"]
