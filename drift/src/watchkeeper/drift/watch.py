"""Watching: one sidecar of a model, that of production holding the lease, examines its windows.

Everything it knows is in the ledger, so that another sidecar goes on where this one ends.
"""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from watchkeeper.contracts.policies import DriftPolicy
from watchkeeper.contracts.version import Manifest
from watchkeeper.drift.act import Actor
from watchkeeper.drift.lease import Lease
from watchkeeper.drift.settings import Settings
from watchkeeper.drift.window import AHEAD_SECONDS, Window, next_window
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.episodes import episodes
from watchkeeper.ledger.events import Event, emit, production_version
from watchkeeper.ledger.reports import DriftReport, reports, save_report

if TYPE_CHECKING:
    from watchkeeper.drift.statistics.reference import Reference

log = logging.getLogger(__name__)


class Watch:
    """The watch over one version. ``view`` is what ``/drift`` shows, replaced as a whole."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        lease: Lease,
        manifest: Manifest,
        policy: DriftPolicy,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.model, self.version = settings.model, settings.version
        self.watching = False
        self.view: dict[str, Any] = {}
        self._folder = settings.model_folder
        self._ledger = ledger
        self._lease = lease
        self._manifest = manifest
        self._policy = policy
        self._clock = clock
        self._reference: Reference | None = None
        self._actor: Actor | None = None

    def turn(self) -> bool:
        """Do what the episodes need, then examine the next window if there is one.

        True when there was one: then the next turn should follow at once.

        Raises:
            SQLAlchemyError: the ledger does not answer; nothing is decided without it.
            PlatformError: the lease or a run could not be had; call again later.
        """
        production = production_version(self._ledger, self.model)
        platform = self._lease.holder() if production == self.version else None
        watching = platform is not None
        if watching != self.watching:
            log.info("%s version %d: %s", self.model, self.version, _role(watching, production))
        self.watching = watching
        present = self._clock() + AHEAD_SECONDS
        last = reports(self._ledger, self.model, self.version, newest=1, until=present)
        report = last[-1].report if last else {}
        if platform is None:
            self._show(report, _role(watching, production))
            return False
        if self._actor is None:
            self._actor = Actor(
                self._ledger,
                platform,
                self.model,
                self.version,
                policy=self._policy,
                clock=self._clock,
            )
        self._actor.turn()
        if self._reference is None:
            self._reference = self._load()
        window = next_window(
            self._ledger,
            self.model,
            self.version,
            rows=self._policy.window,
            every=self._policy.every,
            after=last[-1].window_end if last else None,
            until=present,
        )
        if window is not None:
            report = self._examine(window, self._reference, report)
        self._show(report, "" if report else "the first window is not full yet")
        return window is not None

    def _load(self) -> "Reference":
        # At once and not with the first window: imports take seconds, in which rows come.
        import watchkeeper.drift.examine  # noqa: F401, PLC0415 - alibi-detect is heavy
        from watchkeeper.drift.reference import load_reference  # noqa: PLC0415 - so is pyarrow

        reference = load_reference(self._folder, self._manifest, self._policy)
        null = reference.null
        log.info("%d rows of reference, %d blocks of %d", null.rows, null.blocks, null.block_rows)
        if null.note:
            log.warning("%s", null.note)
        return reference

    def _examine(
        self, window: Window, reference: "Reference", before: dict[str, Any]
    ) -> dict[str, Any]:
        from watchkeeper.drift.examine import examine  # noqa: PLC0415 - see _load

        report = examine(window, reference, self._policy, before)
        for column, sensor in report["sensors"].items():
            emit(self._ledger, self._alert(column, sensor, window))
        drifted = report["verdict"] == "drifted"
        save_report(
            self._ledger,
            DriftReport(self.model, self.version, window.start, window.end, drifted, report),
        )
        log.info("window to %.3f: %s, %s", window.end, report["verdict"], report["reason"])
        return report

    def _alert(self, column: str, sensor: dict[str, Any], window: Window) -> Event:
        return Event(
            id=f"{self.model}/v{self.version}/sensor-broken/{column}/{sensor['since']:.3f}",
            model=self.model,
            version=self.version,
            kind="sensor-broken",
            time=window.end,
            reason=f"{column}: {sensor['what']}",
            details={"column": column, "since": sensor["since"]},
        )

    def _show(self, report: dict[str, Any], why: str) -> None:
        mine = [e for e in episodes(self._ledger, self.model) if e.version == self.version]
        self.view = {
            "model": self.model,
            "version": self.version,
            "watching": self.watching,
            "verdict": "undecided",
            "reason": why,
            "features": [],
            "sensors": {},
            "policy": msgspec.to_builtins(self._policy),
            **report,
            "episode": msgspec.to_builtins(mine[-1]) if mine else None,
        }


def _role(watching: bool, production: int | None) -> str:
    if watching:
        return "watches"
    return f"does not watch, production is version {production}"
