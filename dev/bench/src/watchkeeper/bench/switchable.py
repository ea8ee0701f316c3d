"""``python -m watchkeeper.bench.switchable``: a server whose records can be switched off and on.

It measures what a record costs. One process does both, because two processes with a different
layout of their memory differ by more than a record costs.
"""

import signal
import sys
from typing import Any

from watchkeeper.serving.__main__ import main
from watchkeeper.serving.recorder import Recorder

ON, OFF = signal.SIGUSR1, signal.SIGUSR2
_write_batch = Recorder.write_batch


def _write_nothing(*_: Any) -> None:
    """Replace Recorder.write_batch."""


def switch(which: int, *_: Any) -> None:
    """Switch the records of this process on or off."""
    write = _write_batch if which == ON else _write_nothing
    Recorder.write_batch = write  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    signal.signal(ON, switch)
    signal.signal(OFF, switch)
    sys.exit(main())
