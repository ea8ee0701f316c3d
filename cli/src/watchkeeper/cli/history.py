"""`watchkeeper history`: every decision about a model, as people read it."""

from collections.abc import Iterable
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from watchkeeper.ledger.events import Event


def title(event: Event) -> str:
    """Say in a few words what was decided: the kind, a step's percentage and verdict, a state."""
    details = event.details
    percent = f"{details['percent']} %" if event.kind == "step" else ""
    state = details.get("state", "") if event.kind == "episode" else ""
    return " ".join(filter(None, (event.kind, percent, details.get("verdict"), state)))


def print_history(console: Console, events: Iterable[Event]) -> None:
    """Show events in their order."""
    table = Table("when (UTC)", "version", "what", "why")
    for event in events:
        when = datetime.fromtimestamp(event.time, UTC).strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(when, str(event.version or ""), title(event), event.reason)
    console.print(table)
