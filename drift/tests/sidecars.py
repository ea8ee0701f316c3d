"""Run a sidecar in the process of the test."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fake_platform import FakePlatform
from pump import MODEL

from watchkeeper.drift.settings import SidecarSettings
from watchkeeper.drift.sidecar import Sidecar

END_SECONDS = 240.0  # to ship the rest of the spool on a busy machine


@contextlib.contextmanager
def running(
    folder: Path, url: str, open_platform: Callable[[], Any] = FakePlatform, **changes: Any
) -> Iterator[Sidecar]:
    """Run a sidecar during a ``with`` block, then shut it down gracefully.

    ``changes`` are settings that differ from the defaults of the tests.
    """
    settings: dict[str, Any] = {
        "model": MODEL,
        "version": 1,
        "model_folder": folder / "version",
        "spool": folder / "spool",
        "ledger_url": url,
        "platform": "",
        "port": 0,
        "poll_seconds": 0.02,
        "watch_seconds": 0.02,
    }
    stop = threading.Event()
    sidecar = Sidecar(SidecarSettings(**(settings | changes)), open_platform, stop)
    thread = threading.Thread(target=sidecar.run)
    thread.start()
    try:
        yield sidecar
    finally:
        stop.set()
        thread.join(END_SECONDS)
    assert not thread.is_alive()
