"""``python -m watchkeeper.bench.switched``: Watchkeeper, whose records can be switched off and on.

Nobody can serve so; only this way the record's cost can be measured. One process does both,
because two of them, with their memory in other places, differ by more than a record costs.
"""

import signal
import sys
from typing import Any

from watchkeeper.serving.__main__ import main
from watchkeeper.serving.dataplane import DataPlane

ON, OFF = signal.SIGUSR1, signal.SIGUSR2
_RECORD = DataPlane._record


def _record_nothing(*_: Any) -> None:
    """Take the place of what records a round."""


def switch(which: int, *_: Any) -> None:
    """Switch the records of this process on or off."""
    record = _RECORD if which == ON else _record_nothing
    DataPlane._record = record  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    signal.signal(ON, switch)
    signal.signal(OFF, switch)
    sys.exit(main())
