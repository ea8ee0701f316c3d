"""Where the control loops run: processes on one machine or objects in a cluster."""

from pathlib import Path

from watchkeeper.platforms.interface import (
    SHOWN_STATE,
    UNREADABLE,
    Announcement,
    Endpoints,
    Platform,
    PlatformError,
    Process,
    RolloutCommands,
    Route,
    RunRefusedError,
    RunState,
    ServingStatus,
    TrainingRun,
)

__all__ = [
    "SHOWN_STATE",
    "UNREADABLE",
    "Announcement",
    "Endpoints",
    "Platform",
    "PlatformError",
    "Process",
    "RolloutCommands",
    "Route",
    "RunRefusedError",
    "RunState",
    "ServingStatus",
    "TrainingRun",
    "open_platform",
]


def open_platform(text: str) -> Platform:
    """Return the platform that ``text`` names.

    Args:
        text: ``local:<folder>`` or ``kube:<namespace>[/<training>[/<name>]]``, with the namespace
            of the training Jobs and the name of the installation in the chart.

    Raises:
        PlatformError: The text names no platform, or there is no system.
    """
    kind, _, place = text.partition(":")
    if kind == "local" and place:
        from watchkeeper.platforms.local import LocalPlatform  # noqa: PLC0415  (needs its extra)

        return LocalPlatform(Path(place))
    if kind == "kube" and place:
        from watchkeeper.platforms.kube import KubePlatform  # noqa: PLC0415  (needs its extra)

        return KubePlatform(*place.split("/", 2))
    raise PlatformError(
        f"platform {text!r}: must be local:<folder of the system> or kube:<namespace>"
    )
