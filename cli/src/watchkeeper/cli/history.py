"""``watchkeeper history``: the events of one or more models, once or as they come."""

import logging
import re
import time
from collections.abc import Container, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from rich.console import Console
from rich.text import Text

from watchkeeper.cli.system import System
from watchkeeper.core.events import (
    EpisodeChanged,
    Event,
    GatePassed,
    GateRejected,
    Promoted,
    RolledBack,
    RolloutStarted,
    StepFinished,
    Watched,
)
from watchkeeper.core.version import short_digest
from watchkeeper.ledger.errors import LedgerError
from watchkeeper.ledger.events import history

log = logging.getLogger(__name__)

LIMIT: Final = 1000  # events of each model
POLLED: Final = 200  # newest events of all models that a poll reads again, more if all are new
POLL_SECONDS: Final = 1.0
INDENT: Final = "    "
UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
STYLES: Final = {Promoted: "green", RolledBack: "red", GateRejected: "red"}


class SinceError(ValueError):
    """A value of ``--since`` is neither a duration nor a time."""


def parse_since(text: str, now: datetime) -> float:
    """Return the time that ``text`` stands for, in seconds since 1970.

    ``text`` is a duration before ``now`` (``90s``, ``30m``, ``2h``, ``5d``, ``1w``), a date or an
    ISO 8601 time. A time without an offset is local time.

    Raises:
        SinceError: it is neither of these.
    """
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip()):
        try:
            return (now - timedelta(**{UNITS[found[2]]: float(found[1])})).timestamp()
        except OverflowError:
            return 0.0
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError) as error:
        raise SinceError(
            f"--since {text!r}: expected a duration such as 2h or 30m, a date such as 2026-11-29, "
            "or a time such as 2026-11-29T08:30"
        ) from error


def read_events(
    system: System, models: Sequence[str], *, since: float = 0.0, last: int | None = None
) -> list[Event]:
    """Return the events of some models, oldest first.

    ``since`` is in seconds since 1970. ``last`` limits the number of events of all models together.
    """
    limit = LIMIT if last is None else last
    events = [
        event
        for model in models
        for event in history(system.ledger, model, since=since, limit=limit)
    ]
    events.sort(key=lambda event: event.time)  # stable: causes stay before effects
    return events if last is None else events[max(0, len(events) - last) :]


def follow_events(
    system: System, models: Sequence[str], *, since: float = 0.0, last: int | None = None
) -> Iterator[Event]:
    """Yield the events that :func:`read_events` returns, then each new event; never ends.

    An event can be stored late with an earlier time, so new events are recognised by their ids. If
    the ledger stops answering, a warning is logged and the next poll tries again.
    """
    # One read: an event that is stored between two reads would be lost.
    most = None if last is None else max(last, LIMIT)
    events = read_events(system, models, since=since, last=most)
    left_out = 0 if last is None else max(0, len(events) - last)
    seen = {event.id for event in events[:left_out]}  # what ``last`` leaves out is not new
    events = events[left_out:]
    answers = True
    while True:
        for event in events:
            seen.add(event.id)
            yield event
        time.sleep(POLL_SECONDS)
        try:
            events = _read_unseen(system, models, seen, since=since)
            answers = True
        except LedgerError as error:
            if answers:
                log.warning("the ledger does not answer, retrying: %s", error)
            answers, events = False, []


def _read_unseen(
    system: System, models: Sequence[str], seen: Container[str], *, since: float
) -> list[Event]:
    """Return the events among the newest ones whose ids are not in ``seen``, oldest first."""
    limit = POLLED
    events = read_events(system, models, since=since, last=limit)
    # While all events of a full page are new, there can be more new ones before them. The page
    # grows in small steps, so that it does not reach events older than those in ``seen``.
    while len(events) == limit and not any(event.id in seen for event in events):
        limit += POLLED
        events = read_events(system, models, since=since, last=limit)
    return [event for event in events if event.id not in seen]


def summarize(event: Event) -> str:
    """Say in a few words what was decided.

    The kind, and a step's percentage and verdict, a state, or the content of a version.
    """
    match event.details:
        case StepFinished(percent=percent, verdict=verdict):
            return f"{event.kind} {percent} % {verdict}"
        case Watched(verdict=verdict):
            return f"{event.kind} {verdict}"
        case EpisodeChanged(state=state):
            return f"{event.kind} {state}"
        case (
            GatePassed(digest=digest)
            | GateRejected(digest=digest)
            | RolloutStarted(digest=digest)
            | Promoted(digest=digest)
        ) if digest:
            return f"{event.kind} {short_digest(digest)}"
    return event.kind


class EventPrinter:
    """Prints events for people.

    On a terminal an event is a line with time, version and kind, and below it its reason, wrapped
    to the terminal's width. Elsewhere an event is a single line, for ``grep`` and logs.
    """

    def __init__(self, console: Console, *, show_model: bool) -> None:
        self._console = console
        self._show_model = show_model

    def print(self, event: Event) -> None:
        """Print one event."""
        words = [_short_time(event.time)]
        if self._show_model:
            words.append(event.model)
        if event.version is not None:
            words.append(f"v{event.version}")
        what = Text(summarize(event), STYLES.get(type(event.details), "bold"))
        head = Text.assemble((" ".join(words), "dim"), " ", what)
        if not self._console.is_terminal:
            line = f"{head.plain}: {event.reason}" if event.reason else head.plain
            self._console.file.write(" ".join(line.split()) + "\n")
            self._console.file.flush()
            return
        self._console.print(head)
        width = max(20, self._console.width - len(INDENT))
        for wrapped in Text(event.reason).wrap(self._console, width):
            self._console.print(Text(INDENT).append_text(wrapped))


def _short_time(seconds: float) -> str:
    """Return a time in the local time zone; the year only where it is another one."""
    try:
        when = datetime.fromtimestamp(seconds).astimezone()
    except (OverflowError, ValueError, OSError):  # the clock of a client may write any time
        return f"{seconds:g} s since 1970"
    other_year = when.year != datetime.now().astimezone().year
    return when.strftime("%Y-%m-%d %H:%M:%S" if other_year else "%m-%d %H:%M:%S")
