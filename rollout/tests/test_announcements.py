"""The events of all components are announced once, where people look first."""

from collections.abc import Callable
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
from watchkeeper.rollout.announcements import KEPT_SECONDS, PROBLEM_SECONDS, Announcements
from watchkeeper.rollout.metrics import RolloutMetrics

NAME = "pump-failure"
NOW = 100_000.0


class Board:
    """Shows announcements by their id."""

    def __init__(self) -> None:
        self.shown: list[Announcement] = []
        self.wrong: list[str] = []
        self.up = True

    def problems(self, _model: str) -> list[str]:
        return self.wrong

    def announce(self, announcement: Announcement) -> None:
        if not self.up:
            raise PlatformError("the platform is down")
        self.shown.append(announcement)


def store(ledger: Ledger, name: str, details: EventDetails, time: float = NOW) -> None:
    emit(ledger, Event(name, NAME, 3, time, f"because of {name}", details))


def announcements(
    board: Board,
    ledger: Ledger,
    clock: Callable[[], float] = lambda: NOW,
    metrics: RolloutMetrics | None = None,
) -> Announcements:
    platform: Any = board
    metrics = metrics or RolloutMetrics()
    return Announcements(NAME, platform, ledger, metrics, clock=clock, monotonic=clock)


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


def test_what_the_gateway_does_not_do_is_announced_once_an_hour_and_counted(ledger: Ledger) -> None:
    board, now, metrics = Board(), [NOW], RolloutMetrics()
    controller = announcements(board, ledger, lambda: now[0], metrics)

    def turn() -> float | None:
        now[0] += PROBLEM_SECONDS
        action = controller.turn()
        assert action is not None
        return metrics.registry.get_sample_value(
            "watchkeeper_rollout_gateway_problems", {"model": NAME}
        )

    assert turn() == 0
    board.wrong = ["the gateway does not apply SecurityPolicy a"]
    assert turn() == 1
    assert turn() == 1
    (shown,) = board.shown
    assert (shown.reason, shown.message, shown.warning) == ("GatewayProblem", board.wrong[0], True)
    now[0] += KEPT_SECONDS
    for _ in range(2):
        turn()
    assert len(board.shown) == 2, "Kubernetes forgets Events after an hour"
    board.wrong = []
    assert turn() == 0


def test_nothing_is_lost_while_there_is_no_platform(ledger: Ledger) -> None:
    board = Board()
    store(ledger, "first", Promoted())
    board.up = False
    assert announcements(board, ledger).turn() is None
    board.up = True
    announcements(board, ledger).turn()
    assert [each.id for each in board.shown] == ["first"]
