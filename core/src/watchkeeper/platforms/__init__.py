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
    """Open the platform that ``text`` names: ``local:<folder>`` or ``kube:<namespace>``.

    Training Jobs may have a namespace of their own: ``kube:<namespace>/<theirs>``.

    Raises:
        PlatformError: no such platform, or no system is there.
    """
    kind, _, place = text.partition(":")
    if kind == "local" and place:
        from watchkeeper.platforms.local import LocalPlatform  # noqa: PLC0415  (needs its extra)

        return LocalPlatform(Path(place))
    if kind == "kube" and place:
        from watchkeeper.platforms.kube import KubePlatform  # noqa: PLC0415  (needs its extra)

        return KubePlatform(*place.split("/", 1))
    raise PlatformError(
        f"platform {text!r}: expected local:<folder of the system> or kube:<namespace>"
    )
