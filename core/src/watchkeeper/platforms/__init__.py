"""Where the loop runs: a laptop's processes or a cluster's objects, behind one interface."""

from pathlib import Path

from watchkeeper.platforms.interface import (
    Asks,
    Endpoints,
    Platform,
    PlatformError,
    Process,
    Route,
    Run,
    RunRefusedError,
    RunState,
    Serving,
)

__all__ = [
    "Asks",
    "Endpoints",
    "Platform",
    "PlatformError",
    "Process",
    "Route",
    "Run",
    "RunRefusedError",
    "RunState",
    "Serving",
    "open_platform",
]


def open_platform(text: str) -> Platform:
    """Open the platform that ``text`` names: ``local:<folder>``.

    Raises:
        PlatformError: no such platform, or no system is there.
    """
    kind, _, place = text.partition(":")
    if kind == "local" and place:
        from watchkeeper.platforms.local import LocalPlatform  # noqa: PLC0415  (needs its extra)

        return LocalPlatform(Path(place))
    raise PlatformError(f"platform {text!r}: expected local:<folder of the system>")
