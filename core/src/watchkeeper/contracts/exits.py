"""What the exit code of a program that ends says to whoever started it, be it a Job or a shell.

Any other code means what ``TRY_AGAIN`` does: the process broke, or was killed.
"""

import os
import signal
from typing import Final

DONE: Final = 0
TRY_AGAIN: Final = 1  # a database or the registry did not answer
GIVE_UP: Final = 2  # the order, the settings or the data must change first
ENDED: Final = 128 + signal.SIGTERM


def end_at_sigterm() -> None:
    """End at once when asked to, for programs that may be cut off at any line.

    That is what a signal does by itself, but not to the first process of a container.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(ENDED))
