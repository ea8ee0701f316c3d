"""``python -m watchkeeper.bench.switched``: Watchkeeper, whose records can be switched off and on.

Nobody can serve so; only this way the record's cost can be measured. One process does both,
because two of them, with their memory in other places, differ by more than a record costs.
"""

import signal
import sys
import time
from typing import Any

from watchkeeper.serving.__main__ import main
from watchkeeper.serving.dataplane import Call, DataPlane

ON, OFF = signal.SIGUSR1, signal.SIGUSR2
_MAKE, _KEEP = DataPlane._record, DataPlane._keep


def _only_metrics(self: DataPlane, call: Call, status: str, *_: Any, **__: Any) -> None:
    self.metrics.observe(call.protocol, status, time.perf_counter() - call.started)


def _keep_nothing(*_: Any) -> None:
    """Take the place of what writes the records of a round."""


def switch(which: int, *_: Any) -> None:
    """Switch the records of this process on or off."""
    made, kept = (_MAKE, _KEEP) if which == ON else (_only_metrics, _keep_nothing)
    DataPlane._record = made  # type: ignore[assignment, method-assign]
    DataPlane._keep = kept  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    signal.signal(ON, switch)
    signal.signal(OFF, switch)
    sys.exit(main())
