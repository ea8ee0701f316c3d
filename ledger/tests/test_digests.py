"""Which content a number of a version stands for, as the events say."""

from watchkeeper.core.events import Event, EventDetails, Promoted, RolledBack, RolloutStarted
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import emit, first_digests, highest_version, last_promotion


def event(version: int, time: float, details: EventDetails) -> Event:
    return Event(f"m/v{version}/{time}", "m", version, time, "a test", details)


def test_a_number_stands_for_the_content_of_its_first_event(ledger: Ledger) -> None:
    assert highest_version(ledger, "m") == 0
    assert last_promotion(ledger, "m") == (None, "")
    for each in (
        event(1, 1.0, RolloutStarted(stable=None)),
        event(1, 2.0, Promoted(digest="first")),
        event(1, 3.0, Promoted(digest="second")),
        event(2, 4.0, RolloutStarted(stable=1)),
        event(7, 5.0, RolledBack(to=1, percent=0)),
    ):
        emit(ledger, each)
    assert first_digests(ledger, "m", [1, 2, 7, 9]) == {1: "first"}
    assert first_digests(ledger, "other", [1]) == {}
    assert highest_version(ledger, "m") == 7
    assert last_promotion(ledger, "m") == (1, "second")
