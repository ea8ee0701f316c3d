"""Sidecars for tests: in this process, with a platform that the test has in hand."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from world import MODEL, Runs

from watchkeeper.drift.settings import Settings
from watchkeeper.drift.sidecar import Sidecar

END_SECONDS = 240.0  # to ship the tail, on a busy machine


@contextlib.contextmanager
def running(
    folder: Path, url: str, open_platform: Callable[[], Any] = Runs, **changes: Any
) -> Iterator[Sidecar]:
    """Run a sidecar for a block, and then end it as SIGTERM does."""
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
    sidecar = Sidecar(Settings(**(settings | changes)), open_platform, stop)
    thread = threading.Thread(target=sidecar.run)
    thread.start()
    try:
        yield sidecar
    finally:
        stop.set()
        thread.join(END_SECONDS)
    assert not thread.is_alive()
