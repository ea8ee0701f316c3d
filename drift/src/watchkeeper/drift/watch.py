"""The watch: examines the windows of the version in production and controls its episodes.

Of all sidecars of a model one watches: the sidecar of the version in production that holds the
lease. All its state is in the ledger, so another sidecar can continue at any time.
"""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from watchkeeper.core.drift_report import BrokenSensor, DriftReport
from watchkeeper.core.events import Event, SensorBroken
from watchkeeper.core.policies import DriftPolicy
from watchkeeper.core.version import Manifest
from watchkeeper.drift.concept.baseline import read_baselines
from watchkeeper.drift.concept.status import ConceptStatus
from watchkeeper.drift.concept.watch import ConceptWatch
from watchkeeper.drift.episode_controller import EpisodeController
from watchkeeper.drift.lease import WatchLease
from watchkeeper.drift.settings import SidecarSettings
from watchkeeper.drift.status import DriftStatus
from watchkeeper.drift.window import (
    CLOCK_TOLERANCE_SECONDS,
    Window,
    newest_time,
    next_window,
)
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.episodes import episodes
from watchkeeper.ledger.events import emit, production_version
from watchkeeper.ledger.reports import reports, save_report
from watchkeeper.platforms import Platform

if TYPE_CHECKING:
    from watchkeeper.drift.statistics.reference import Reference

log = logging.getLogger(__name__)


class Watch:
    """The watch over one version. ``status`` is None until the first :meth:`run_once`."""

    def __init__(
        self,
        settings: SidecarSettings,
        ledger: Ledger,
        lease: WatchLease,
        manifest: Manifest,
        policy: DriftPolicy,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Create the watch.

        Args:
            settings: the settings of the sidecar.
            ledger: the ledger.
            lease: the lease of the version.
            manifest: the verified manifest of the version.
            policy: the policy in force.
            clock: returns the time, seconds since 1970; requests of the future do not count.
        """
        self.status: DriftStatus | None = None
        self._model, self._version = settings.model, settings.version
        self._folder = settings.model_folder
        self._ledger = ledger
        self._lease = lease
        self._manifest = manifest
        self._policy = policy
        self._clock = clock
        self._concepts: dict[str, ConceptWatch] = {}  # by the names of the truths
        self._not_watched: dict[str, ConceptStatus] = {}
        self._reference: Reference | None = None
        self._controller: EpisodeController | None = None

    def run_once(self) -> bool:
        """Judge labelled rows, control the episodes, and examine the next window if it is complete.

        Returns:
            True if there was a window, or a block of labelled rows. Then the next one may be
            complete, too.

        Raises:
            LedgerError: the ledger does not answer; nothing is decided.
            PlatformError: the platform does not answer; call again later.
            BrokenVersionError: the reference cannot be read.
            OSError: the report of the gate cannot be read; call again later.
        """
        until = self._clock() + CLOCK_TOLERANCE_SECONDS
        production = production_version(self._ledger, self._model)
        platform = self._lease.acquire() if production == self._version else None
        newest = reports(self._ledger, self._model, self._version, limit=1, until=until)
        report = newest[-1] if newest else None
        if platform is None:
            if production == self._version:
                reason = f"does not watch, another sidecar of version {production} watches"
            else:
                reason = f"does not watch, production is version {production}"
            self._publish(report, watching=False, reason=reason)
            return False
        judged = self._judge_concepts(report, until)
        self._control_episodes(platform)
        if self._reference is None:
            self._reference = self._read_reference()
        window = next_window(
            self._ledger,
            self._model,
            self._version,
            rows=self._policy.window,
            every=self._policy.every,
            after=report.window.end if report else None,
            until=until,
        )
        if window is not None:
            report = self._examine(window, self._reference, report)
        self._publish(report, watching=True, reason="the first window is not complete yet")
        return judged or window is not None

    def _judge_concepts(self, report: DriftReport | None, until: float) -> bool:
        """Judge the labelled rows of each head; True if there may be more to judge."""
        if self._manifest.truths and not (self._concepts or self._not_watched):
            self._open_concepts()
        now = newest_time(self._ledger, self._model, self._version, until)
        if now is None or report is None:
            return False
        examined = report.window.end
        more = [each.run_once(now, examined, until) for each in self._concepts.values()]
        return any(more)

    def _open_concepts(self) -> None:
        truths = self._manifest.truths
        baselines = read_baselines(self._folder, self._manifest)
        for truth in truths:
            name, baseline = truth.name, baselines[truth.name]
            if isinstance(baseline, str):
                status = ConceptStatus(name, truth.task.loss, "not available", baseline)
                self._not_watched[name] = status
                continue
            self._concepts[name] = ConceptWatch(
                self._ledger,
                self._model,
                self._version,
                truth,
                baseline=baseline,
                policy=self._policy,
                heads=len(truths),
            )

    def _control_episodes(self, platform: Platform) -> None:
        if self._controller is None:
            self._controller = EpisodeController(
                self._ledger,
                platform,
                self._model,
                self._version,
                policy=self._policy,
                truths=self._manifest.truths,
                clock=self._clock,
            )
        self._controller.reconcile(self._concept_status())

    def _concept_status(self) -> tuple[ConceptStatus, ...]:
        watched = {name: each.status for name, each in self._concepts.items()}
        known = self._not_watched | watched
        return tuple(known[truth.name] for truth in self._manifest.truths if truth.name in known)

    def _read_reference(self) -> "Reference":
        # Import both modules here: they import alibi-detect and pyarrow, which a sidecar that only
        # ships does not need. Import them before the first window, because this takes seconds in
        # which rows arrive.
        import watchkeeper.drift.examine  # noqa: F401, PLC0415
        from watchkeeper.drift.reference_reader import read_reference  # noqa: PLC0415

        reference = read_reference(self._folder, self._manifest, self._policy)
        variation = reference.variation
        log.info(
            "the reference has %d rows, %d blocks of %d rows",
            variation.rows,
            variation.blocks,
            variation.block_rows,
        )
        if variation.note:
            log.warning("%s", variation.note)
        if variation.cannot_alarm:
            log.warning(
                "%s can never alarm: the history varies so much that no window can differ more",
                ", ".join(variation.cannot_alarm),
            )
        return reference

    def _examine(
        self, window: Window, reference: "Reference", previous: DriftReport | None
    ) -> DriftReport:
        from watchkeeper.drift.examine import examine  # noqa: PLC0415 - see _read_reference

        report = examine(window, reference, self._policy, previous)
        for column, sensor in report.sensors.items():
            emit(self._ledger, self._sensor_event(column, sensor, window))
        save_report(self._ledger, self._model, self._version, report)
        log.info("window until %.3f is %s: %s", window.end, report.verdict, report.reason)
        return report

    def _sensor_event(self, column: str, sensor: BrokenSensor, window: Window) -> Event:
        return Event(
            id=f"{self._model}/v{self._version}/sensor-broken/{column}/{sensor.since:.3f}",
            model=self._model,
            version=self._version,
            time=window.end,
            reason=f"{column}: {sensor.what}",
            details=SensorBroken(column=column, since=sensor.since),
        )

    def _publish(self, report: DriftReport | None, *, watching: bool, reason: str) -> None:
        if self.status is None or self.status.watching != watching:
            role = "watches" if watching else reason
            log.info("sidecar of %s version %d: %s", self._model, self._version, role)
        own = [e for e in episodes(self._ledger, self._model) if e.version == self._version]
        self.status = DriftStatus(
            model=self._model,
            version=self._version,
            watching=watching,
            reason=reason,
            policy=self._policy,
            report=report,
            episode=own[-1] if own else None,
            cannot_alarm=self._reference.variation.cannot_alarm if self._reference else (),
            # Without the watch no turn brings it up to date, and another sidecar has the new one.
            concept=self._concept_status() if watching else (),
        )
