"""`watchkeeper history`: every decision, as people read it."""

from collections.abc import Sequence
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


def print_history(console: Console, events: Sequence[Event]) -> None:
    """Show events in their order."""
    several = len({event.model for event in events}) > 1
    table = Table("when (UTC)", *(["model"] if several else []), "version", "what", "why")
    for event in events:
        when = datetime.fromtimestamp(event.time, UTC).strftime("%Y-%m-%d %H:%M:%S")
        which = [event.model] if several else []
        table.add_row(when, *which, str(event.version or ""), title(event), event.reason)
    console.print(table)
