"""Where the loop runs: a laptop's processes or a cluster's objects, behind one interface."""

from watchkeeper.platforms.interface import (
    Asks,
    Endpoints,
    Platform,
    PlatformError,
    Process,
    Route,
    Run,
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
    "RunState",
    "Serving",
]
