"""The settings of one sidecar, from its environment."""

from pathlib import Path
from typing import Any

import msgspec


class Settings(msgspec.Struct, frozen=True):
    """``WATCHKEEPER_<FIELD>``; see ``contracts.settings``.

    ``drift_policy`` holds the values that replace the version's own, ``retention`` those that
    replace the defaults of ``RetentionPolicy``. ``drain_seconds`` is how
    long a graceful end may try to ship the tail; it must be shorter than the grace of the pod.
    """

    model: str
    version: int
    model_folder: Path
    spool: Path
    ledger_url: str
    platform: str
    port: int
    host: str = "127.0.0.1"
    drift_policy: dict[str, Any] = {}
    retention: dict[str, Any] = {}
    poll_seconds: float = 0.5
    watch_seconds: float = 1.0
    drain_seconds: float = 20.0
