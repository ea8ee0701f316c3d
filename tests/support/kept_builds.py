"""What ``make cluster`` has built on this machine."""

import os
from pathlib import Path

CACHES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
CACHE = Path(os.environ.get("WATCHKEEPER_CLUSTER_CACHE") or CACHES / "watchkeeper-cluster")


class MissingError(Exception):
    """A program or a file that a test needs is missing."""


def cached(pattern: str) -> str:
    """Return the newest file that was built and matches the pattern."""
    found = sorted(CACHE.glob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        raise MissingError(f"no {CACHE / pattern}: 'make cluster' builds it")
    return str(found[-1])
