"""Sidecar status: written by the threads of the sidecar, read by its HTTP server."""

import time
from typing import Any, Literal, get_args

import msgspec

from watchkeeper.core.drift_report import DriftReport, dump_report
from watchkeeper.core.policies import DriftPolicy
from watchkeeper.drift.concept.status import ConceptStatus
from watchkeeper.ledger.episodes import Episode

# Where errors are counted: calls of the ledger by the shipping thread, its other errors, and
# errors of the two other threads.
ErrorSource = Literal["ledger", "shipping", "watch", "retention"]
ERROR_SOURCES: tuple[ErrorSource, ...] = get_args(ErrorSource)


class DriftStatus(msgspec.Struct, frozen=True):
    """What the watch knows about a version.

    ``watching`` is True on the one sidecar of a model that watches. ``report`` is the report of the
    newest window; until there is one, ``reason`` says why. ``episode`` is the newest episode of the
    version. ``cannot_alarm`` are the features that can never alarm, see
    :class:`watchkeeper.core.drift_report.ReportReference`. ``concept`` is what the labelled rows
    show, for each head with a truth; it is empty on a sidecar that does not watch.
    """

    model: str
    version: int
    watching: bool
    reason: str
    policy: DriftPolicy
    report: DriftReport | None = None
    episode: Episode | None = None
    cannot_alarm: tuple[str, ...] = ()
    concept: tuple[ConceptStatus, ...] = ()


def drift_as_json(drift: DriftStatus) -> dict[str, Any]:
    """Return the body of ``GET /drift``: the report, with who made it and the newest episode."""
    without_report = {
        "verdict": "undecided",
        "reason": drift.reason,
        "features": [],
        "sensors": {},
        "policy": msgspec.to_builtins(drift.policy),
    }
    return {
        "model": drift.model,
        "version": drift.version,
        "watching": drift.watching,
        **(dump_report(drift.report) if drift.report else without_report),
        "cannot_alarm": list(drift.cannot_alarm),
        "concept": msgspec.to_builtins(drift.concept),
        "episode": msgspec.to_builtins(drift.episode),
    }


class SidecarStatus(msgspec.Struct):
    """The status of one sidecar.

    Counts are since the process started, except ``lost``, ``torn`` and ``shed``, which the
    checkpoint of the spool contains.

    ``shipping_error`` says why records are not shipped; it is empty while they are.
    ``shipped_until``: all records up to this time are in the ledger, seconds since 1970; 0 if not
    known.
    ``last_active`` is when the shipping thread last did something, by the monotonic clock.
    ``drift`` is None until the watch has run once. ``watch_error`` is the error of its newest turn;
    it is empty if the turn succeeded.
    """

    model: str
    version: int
    shipped: int = 0
    lost: int = 0
    torn: int = 0
    shed: int = 0
    errors: dict[ErrorSource, int] = msgspec.field(
        default_factory=lambda: dict.fromkeys(ERROR_SOURCES, 0)
    )
    shipped_until: float = 0.0
    shipping_error: str = "nothing has been shipped yet"
    last_active: float = msgspec.field(default_factory=time.monotonic)
    drift: DriftStatus | None = None
    watch_error: str = ""

    def shipping_lag(self) -> float:
        """Return how many seconds the ledger is behind the spool; 0 if not known."""
        return max(0.0, time.time() - self.shipped_until) if self.shipped_until else 0.0
