"""Turns without end, each model's in a thread of its own.

A turn may wait long for what it asks: a server that drains, a registry that hangs, a version's
files. That must not keep another model's canary in traffic, so the models share nothing here.
"""

import threading
import time
from collections.abc import Sequence
from typing import Protocol

from watchkeeper.rollout.metrics import Health
from watchkeeper.rollout.steps import Step, Wait

AFTER_CHANGE = 0.1
END_SECONDS = 10.0


class Turns(Protocol):
    """What is called again and again: a controller."""

    model: str

    def turn(self) -> Step | None:
        """Take one step."""

    def end(self) -> None:
        """Let another process take the turns."""


def run(
    controllers: Sequence[Turns], turn_seconds: float, health: Health, ended: threading.Event
) -> list[str]:
    """Take turns until ``ended`` is set, and finish those in progress.

    Returns the models whose turns did not end in time; they are cut off with the process, which
    a turn allows at any line.
    """
    threads = [
        threading.Thread(
            target=_turns,
            args=(controller, turn_seconds, health, ended),
            name=controller.model,
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


def _turns(controller: Turns, turn_seconds: float, health: Health, ended: threading.Event) -> None:
    before: Step | None = None
    while not ended.is_set():
        step = controller.turn()
        health.beat(controller.model)
        # After a change the next step is often known: no need to wait for it. One that is asked for
        # again, such as retiring a server that drains, is no change.
        changed = step is not None and not isinstance(step, Wait) and step != before
        before = step
        ended.wait(min(AFTER_CHANGE, turn_seconds) if changed else turn_seconds)
    controller.end()
