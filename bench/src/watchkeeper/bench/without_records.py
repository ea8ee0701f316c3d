"""``python -m watchkeeper.bench.without_records``: Watchkeeper, but no record is made or written.

Nobody can serve so; only this way the record's cost can be measured.
"""

import sys
import time
from typing import Any

from watchkeeper.serving.__main__ import main
from watchkeeper.serving.dataplane import Call, DataPlane


def _only_metrics(self: DataPlane, call: Call, status: str, *_: Any, **__: Any) -> None:
    self.metrics.observe(call.protocol, status, time.perf_counter() - call.started)


if __name__ == "__main__":
    DataPlane._record = _only_metrics  # type: ignore[method-assign]
    sys.exit(main())
