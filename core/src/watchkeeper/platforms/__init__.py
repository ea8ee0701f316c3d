"""Where the loop runs: a laptop's processes or a cluster's objects, behind one interface."""

from watchkeeper.platforms.interface import (
    Asks,
    Platform,
    PlatformError,
    Route,
    Run,
    RunState,
    Serving,
)

__all__ = ["Asks", "Platform", "PlatformError", "Route", "Run", "RunState", "Serving"]
