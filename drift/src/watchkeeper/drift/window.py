"""Windows: which rows of the ledger are compared next.

A window ends ``every`` rows after the window before it, by the record time. So a day that is
replayed in seconds has the same windows as the day itself. Records of the future, which a wrong
clock has written, do not count until their time comes; otherwise no window would end before then.
Synthetic requests are in no window.
"""

import math

import msgspec

from watchkeeper.ledger import Ledger
from watchkeeper.ledger.observations import Observation, observations, time_of_row

CLOCK_TOLERANCE_SECONDS = 5.0  # the clocks of two machines may differ by this much


class Window(msgspec.Struct, frozen=True):
    """The requests of a window, answered or refused, oldest first.

    ``start`` and ``end`` are the record times of the first and the last one, seconds since 1970.
    """

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
    """Return the next window, or None while there are not enough rows.

    A request counts as its number of rows; a refused request counts as at least one row.

    Args:
        ledger: the ledger.
        model: the model.
        version: the version.
        rows: the number of rows of a window.
        every: the number of new rows from one window to the next.
        after: the end of the window before; None for the first window.
        until: ignore requests after this record time, seconds since 1970.
    """
    needed = rows if after is None else every
    since = float("-inf") if after is None else after
    end = time_of_row(ledger, model, version, needed, after=since, until=until)
    if end is None:
        return None
    start = time_of_row(ledger, model, version, rows, until=end, newest_first=True)
    if start is None:
        return None
    # The limit matters only if many requests have the same time: each counts as a row or more.
    requests = observations(
        ledger, model, version, since=start, until=math.nextafter(end, math.inf), limit=rows
    )
    return Window(requests, start, end)


def newest_time(ledger: Ledger, model: str, version: int, until: float = math.inf) -> float | None:
    """Return the record time of the newest request up to ``until``: the clock of the watch."""
    return time_of_row(ledger, model, version, 1, newest_first=True, until=until)
