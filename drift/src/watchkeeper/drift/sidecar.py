"""The sidecar: one thread ships, one watches, one does retention, and one serves HTTP.

No thread waits for another. No error ends a thread: the error is counted and logged, and the thread
tries again, with exponential back-off.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from watchkeeper.core.policies import DriftPolicy, P, RetentionPolicy, override
from watchkeeper.core.settings import PREFIX, SettingsError
from watchkeeper.core.version import BrokenVersionError, read_manifest
from watchkeeper.drift.backoff import backoff
from watchkeeper.drift.lease import WatchLease
from watchkeeper.drift.retention import Retention
from watchkeeper.drift.server import Server
from watchkeeper.drift.settings import SidecarSettings
from watchkeeper.drift.ship import Shipper
from watchkeeper.drift.status import ErrorSource, SidecarStatus
from watchkeeper.drift.watch import Watch
from watchkeeper.drift.watch_failures import WatchFailures
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.errors import LedgerError
from watchkeeper.ledger.events import production_version
from watchkeeper.platforms import Platform, PlatformError

STOP_SECONDS = 2.0  # how long a graceful shutdown waits for the watch and for retention

log = logging.getLogger(__name__)


class Sidecar:
    """One sidecar. It runs until ``stop`` is set, then it ships the rest of the spool."""

    def __init__(
        self,
        settings: SidecarSettings,
        open_platform: Callable[[], Platform],
        stop: threading.Event,
    ) -> None:
        """Create the sidecar.

        Args:
            settings: the settings.
            open_platform: opens the platform. Only the sidecar of the version in production calls
                it, because clients of platforms are heavy.
            stop: set it for a graceful shutdown.

        Raises:
            SettingsError: a value of a policy is invalid, or the URL of the ledger is.
        """
        self.settings = settings
        self.status = SidecarStatus(settings.model, settings.version)
        self._stop = stop
        self._lease = WatchLease(open_platform, settings.model, settings.version)
        # The version's own policy is in its manifest, which may not be there yet. A check against
        # the defaults finds unknown names and wrong types now.
        _override("drift_policy", DriftPolicy(), settings.drift_policy)
        policy = _override("retention", RetentionPolicy(), settings.retention)
        self._ledger = Ledger(settings.ledger_url)
        self._shipper = Shipper(
            settings.spool,
            self._ledger,
            settings.model,
            settings.version,
            model_folder=settings.model_folder,
        )
        self._retention = Retention(self._ledger, settings.model, policy)
        self._watch: Watch | None = None
        self._failures = WatchFailures(self._ledger, settings.model, settings.version)

    def run(self) -> bool:
        """Run until the graceful shutdown is complete.

        Returns:
            False if some records could not be shipped before the end.

        Raises:
            OSError: the port cannot be bound.
        """
        server = Server(self.status, self.settings.host, self.settings.port)
        server.start()
        tasks: dict[ErrorSource, Callable[[], bool]] = {
            "watch": self._run_watch,
            "retention": self._run_retention,
        }
        threads = [
            threading.Thread(target=self._repeat, args=(name, task), name=name, daemon=True)
            for name, task in tasks.items()
        ]
        for thread in threads:
            thread.start()
        try:
            self._ship_until_stopped()
            return self._drain()
        finally:
            server.stop()
            deadline = time.monotonic() + STOP_SECONDS
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
            self._lease.release()
            self._ledger.close()

    # Shipping, in the main thread.

    def _ship_until_stopped(self) -> None:
        failures = 0
        while not self._stop.is_set():
            if self._ship():
                failures = 0
                self._stop.wait(self.settings.poll_seconds)
            else:
                failures += 1
                self._stop.wait(backoff(self.settings.poll_seconds, failures))

    def _drain(self) -> bool:
        """Ship the rest of the spool, whose server has ended, and close the spool."""
        deadline = time.monotonic() + self.settings.drain_seconds
        while True:
            if self._ship(close=True):
                log.info("the spool is shipped completely")
                return True
            if time.monotonic() >= deadline:
                log.error(
                    "the rest of the spool is not shipped: %s; it stays in the spool",
                    self.status.shipping_error,
                )
                return False
            time.sleep(self.settings.poll_seconds)

    def _ship(self, *, close: bool = False) -> bool:
        """Ship all records of the spool; return False after an error."""
        status, shipper = self.status, self._shipper
        try:
            more = True
            while more:
                status.last_active = time.monotonic()
                more = shipper.ship_batch()
            if close:
                shipper.close()
        except LedgerError as error:
            status.errors["ledger"] += 1
            status.shipping_error = f"the ledger does not store records: {error}"
            log.warning("%s; they stay in the spool", status.shipping_error)
            return False
        except Exception as error:  # a full disk or a defect; the records stay in the spool
            status.errors["shipping"] += 1
            status.shipping_error = f"records cannot be shipped: {type(error).__name__}: {error}"
            known = isinstance(error, OSError)
            log.warning("%s; they stay in the spool", status.shipping_error, exc_info=not known)
            return False
        finally:
            checkpoint = shipper.checkpoint
            status.shipped = shipper.shipped
            status.shipped_until = shipper.shipped_until
            status.lost, status.torn = checkpoint.lost, checkpoint.torn
            status.shed = checkpoint.shed
            status.last_active = time.monotonic()
        if status.shipping_error:
            log.info("records are shipped")
            status.shipping_error = ""
        return True

    # The watch and retention, in a thread each.

    def _repeat(self, name: ErrorSource, task: Callable[[], bool]) -> None:
        """Call a task until the sidecar stops; at once again if it returns True."""
        failures = 0
        while not self._stop.is_set():
            more = False
            try:
                more = task()
                failures = 0
            except (LedgerError, PlatformError, BrokenVersionError) as error:
                log.warning("%s tries again: %s", name, error)
                failures += 1
            except Exception:
                log.exception("%s failed and tries again", name)
                failures += 1
            if failures:
                self.status.errors[name] += 1
                self._stop.wait(backoff(self.settings.watch_seconds, failures))
            elif not more:
                self._stop.wait(self.settings.watch_seconds)

    def _run_watch(self) -> bool:
        try:
            if self._watch is None:
                self._watch = self._open_watch()
            more = self._watch.run_once()
            drift = self.status.drift = self._watch.status
            self._failures.works(watching=drift is not None and drift.watching)
        except Exception as error:
            self._failures.failed(error)
            raise
        finally:
            self.status.watch_error = self._failures.error
        return more

    def _open_watch(self) -> Watch:
        manifest = read_manifest(self.settings.model_folder)
        policy = override(manifest.drift, self.settings.drift_policy)
        return Watch(self.settings, self._ledger, self._lease, manifest, policy)

    def _run_retention(self) -> bool:
        """Do retention, unless another sidecar of the version in production is known to do it.

        The lease only saves work. A deletion must not wait for a platform that does not answer or
        for a watch that fails, and several sidecars may do retention at the same time.
        """
        model, version = self.settings.model, self.settings.version
        if self._lease.held is False or production_version(self._ledger, model) != version:
            return False
        return self._retention.run_once()


def _override(field: str, policy: P, changes: dict[str, Any]) -> P:
    try:
        return override(policy, changes)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{PREFIX}{field.upper()}: {error}") from error
