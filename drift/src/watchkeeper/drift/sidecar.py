"""One sidecar: shipping in the main thread, the watch and the server in threads of their own.

Shipping never waits for the watch, whose imports take seconds; neither ends because of an
error of the other.
"""

import logging
import threading
import time
from collections.abc import Callable

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from watchkeeper.contracts.policies import RetentionPolicy, override
from watchkeeper.contracts.settings import SettingsError
from watchkeeper.contracts.version import BrokenVersionError, read_manifest
from watchkeeper.drift.keep import Keeper
from watchkeeper.drift.server import Server
from watchkeeper.drift.settings import Settings
from watchkeeper.drift.ship import Shipper
from watchkeeper.drift.state import State
from watchkeeper.drift.watch import Watch
from watchkeeper.ledger import Ledger
from watchkeeper.platforms import Platform, PlatformError

LONGEST_PAUSE = 30.0  # seconds between two tries while the ledger is down
WATCH_STOP_SECONDS = 2.0

log = logging.getLogger(__name__)


class Sidecar:
    """Runs until ``stop`` is set, then ships the tail."""

    def __init__(
        self, settings: Settings, open_platform: Callable[[], Platform], stop: threading.Event
    ) -> None:
        """Raises SettingsError: the retention policy breaks a rule of its own."""
        self.settings = settings
        self.state = State(settings.model, settings.version)
        self._stop = stop
        self._open_platform = open_platform
        try:
            self._retention = override(RetentionPolicy(), settings.retention)
        except msgspec.ValidationError as error:
            raise SettingsError(f"WATCHKEEPER_RETENTION: {error}") from error
        self._ledger = Ledger(settings.ledger_url)
        self._shipper = Shipper(settings.spool, self._ledger, settings.model, settings.version)

    def run(self) -> bool:
        """Ship and watch until the end; False when the tail could not be shipped.

        Raises:
            OSError: the port or the spool cannot be had.
        """
        server = Server(self.state, self.settings.host, self.settings.port)
        server.start()
        watch = threading.Thread(target=self._watch, name="watch", daemon=True)
        watch.start()
        try:
            self._ship()
            return self._drain()
        finally:
            server.stop()
            watch.join(WATCH_STOP_SECONDS)
            self._ledger.close()

    def _ship(self) -> None:
        failures = 0
        while not self._stop.is_set():
            if self._turn():
                failures = 0
                self._stop.wait(self.settings.poll_seconds)
            else:
                failures += 1
                self._stop.wait(_pause(self.settings.poll_seconds, failures))

    def _drain(self) -> bool:
        """Ship to the end of the spool, which its server has left, and mark it closed."""
        until = time.monotonic() + self.settings.drain_seconds
        while True:
            if self._turn(close=True):
                log.info("the spool is shipped to its end")
                return True
            if time.monotonic() >= until:
                log.error("the tail is not shipped: %s; it stays in the spool", self.state.trouble)
                return False
            time.sleep(self.settings.poll_seconds)

    def _turn(self, *, close: bool = False) -> bool:
        """Ship what is there; False when the ledger did not take it."""
        state, shipper = self.state, self._shipper
        try:
            more = True
            while more:
                state.alive = time.monotonic()
                more = shipper.turn()
            if close:
                shipper.close()
        except SQLAlchemyError as error:
            state.ledger_errors += 1
            state.trouble = f"the ledger does not take records: {error}"
            log.warning("%s; they are held", state.trouble)
            return False
        finally:
            state.shipped = shipper.shipped
            place = shipper.checkpoint
            state.lost, state.torn, state.shed = place.lost, place.torn, place.shed
            state.shipped_until = shipper.shipped_until
            state.alive = time.monotonic()
        if state.trouble:
            log.info("records are shipped")
            state.trouble = ""
        return True

    def _watch(self) -> None:
        watch: Watch | None = None
        keeper = Keeper(self._ledger, self.settings.model, self._retention)
        failures = 0
        while not self._stop.is_set():
            try:
                watch = watch or self._open_watch()
                again = watch.turn()
                self.state.view = watch.view
                if watch.watching:
                    again = keeper.turn() or again
                failures = 0
            except (SQLAlchemyError, PlatformError, BrokenVersionError) as error:
                log.warning("the watch waits: %s", error)
                failures += 1
            except Exception:  # shipping must go on; counted, and tried again
                log.exception("the watch failed")
                failures += 1
            if failures:
                self.state.watch_errors += 1
                self._stop.wait(_pause(self.settings.watch_seconds, failures))
            elif not again:
                self._stop.wait(self.settings.watch_seconds)

    def _open_watch(self) -> Watch:
        manifest = read_manifest(self.settings.model_folder)
        policy = override(manifest.drift, self.settings.drift_policy)
        return Watch(self.settings, self._ledger, self._open_platform, manifest, policy)


def _pause(seconds: float, failures: int) -> float:
    # A power that grows for hours would be too large a number for a float.
    return min(LONGEST_PAUSE, seconds * 2.0 ** min(failures, 10))
