"""The loop: turns of each controller, in a thread per controller.

A turn may take long: a server that drains, a registry that hangs, a version's files. That must not
keep the bad canary of another model in traffic, so the controllers share nothing here.
"""

import threading
import time
from collections.abc import Sequence
from typing import Final, Protocol

from watchkeeper.rollout.actions import Action, Wait
from watchkeeper.rollout.metrics import Health

AFTER_CHANGE: Final = 0.1  # seconds from a change to the next turn
END_SECONDS = 10.0


class TurnTaker(Protocol):
    """What the loop calls: a controller, with its name for the log and for the health."""

    name: str

    def turn(self) -> Action | None:
        """Take one turn and return its action; None if no action was possible."""

    def end(self) -> None:
        """Release the lease, so that another process can take the turns."""


def run(
    controllers: Sequence[TurnTaker], turn_seconds: float, health: Health, ended: threading.Event
) -> list[str]:
    """Take turns until ``ended`` is set, then finish the turns in progress.

    Returns:
        The controllers whose turns did not end in time. They end with the process; a turn may be
        interrupted at any line.
    """
    threads = [
        threading.Thread(
            target=_take_turns,
            args=(controller, turn_seconds, health, ended),
            name=controller.name,
            daemon=True,
        )
        for controller in controllers
    ]
    for thread in threads:
        thread.start()
    ended.wait()
    deadline = time.monotonic() + END_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [thread.name for thread in threads if thread.is_alive()]


def _take_turns(
    controller: TurnTaker, turn_seconds: float, health: Health, ended: threading.Event
) -> None:
    last: Action | None = None
    while not ended.is_set():
        action = controller.turn()
        health.beat(controller.name)
        # After a change the next action is often known, so the next turn follows at once. An action
        # that is repeated, such as retiring a server that drains, is no change.
        changed = action is not None and not isinstance(action, Wait) and action != last
        last = action
        ended.wait(min(AFTER_CHANGE, turn_seconds) if changed else turn_seconds)
    controller.end()
