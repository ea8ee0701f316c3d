"""Which rows make the next window, read from the ledger by the records' own time.

Windows follow each other every ``every`` rows without a gap, so that a day that is replayed in
seconds is seen in the same windows as the day itself. Only what lies in the future, because a clock
was wrong when it was written, is not looked at until its time has come: the watch would be blind
till then.
"""

import math

import msgspec

from watchkeeper.ledger import Ledger
from watchkeeper.ledger.observations import Observation, observations, reach

AHEAD_SECONDS = 5.0  # clocks of two machines may differ by so much


class Window(msgspec.Struct, frozen=True):
    """Requests of one version, answered or refused, oldest first; times of the first and last."""

    requests: list[Observation]
    start: float
    end: float


def next_window(
    ledger: Ledger,
    model: str,
    version: int,
    *,
    rows: int,
    every: int,
    after: float | None,
    until: float = math.inf,
) -> Window | None:
    """Return the window that ends ``every`` rows after the time of the one before.

    The first one (``after`` None) ends where ``rows`` rows are there. None while there are not
    enough. Requests count by their rows, refused ones by at least one; those after ``until`` do
    not count.
    """
    needed = rows if after is None else every
    since = float("-inf") if after is None else after
    end = reach(ledger, model, version, needed, after=since, until=until)
    if end is None:
        return None
    start = reach(ledger, model, version, rows, until=end, newest=True)
    if start is None:
        return None
    requests = observations(
        ledger, model, version, since=start, until=math.nextafter(end, math.inf)
    )
    return Window(requests, start, end)


def newest_time(ledger: Ledger, model: str, version: int, until: float = math.inf) -> float | None:
    """Return the time of a version's newest request up to ``until``: the clock of its watch."""
    return reach(ledger, model, version, 1, newest=True, until=until)
