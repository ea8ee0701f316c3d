"""One sidecar: shipping in the main thread; the watch, the keeper and the server in their own.

None waits for another, and none ends because of an error, its own or another's: it is counted,
told and tried again, later each time.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from watchkeeper.contracts.policies import DriftPolicy, P, RetentionPolicy, override
from watchkeeper.contracts.settings import SettingsError
from watchkeeper.contracts.version import BrokenVersionError, read_manifest
from watchkeeper.drift.keep import PAUSE_SECONDS, Keeper
from watchkeeper.drift.lease import Lease
from watchkeeper.drift.server import Server
from watchkeeper.drift.settings import Settings
from watchkeeper.drift.ship import Shipper
from watchkeeper.drift.state import Part, State
from watchkeeper.drift.watch import Watch
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import production_version
from watchkeeper.platforms import Platform, PlatformError

STOP_SECONDS = 2.0

log = logging.getLogger(__name__)


class Sidecar:
    """Runs until ``stop`` is set, then ships the tail."""

    def __init__(
        self, settings: Settings, open_platform: Callable[[], Platform], stop: threading.Event
    ) -> None:
        """Raises SettingsError: a policy breaks a rule of its own, or the ledger can be none."""
        self.settings = settings
        self.state = State(settings.model, settings.version)
        self._stop = stop
        self._lease = Lease(open_platform, settings.model, settings.version)
        _checked("DRIFT_POLICY", DriftPolicy(), settings.drift_policy)
        retention = _checked("RETENTION", RetentionPolicy(), settings.retention)
        self._ledger = Ledger(settings.ledger_url)
        self._shipper = Shipper(settings.spool, self._ledger, settings.model, settings.version)
        self._keeper = Keeper(self._ledger, settings.model, retention)
        self._opened: Watch | None = None

    def run(self) -> bool:
        """Ship and watch until the end; False when the tail could not be shipped.

        Raises:
            OSError: the port or the spool cannot be had.
        """
        server = Server(self.state, self.settings.host, self.settings.port)
        server.start()
        turns: dict[Part, Callable[[], bool]] = {"watch": self._watch, "keeper": self._keep}
        threads = [
            threading.Thread(target=self._repeat, args=(name, turn), name=name, daemon=True)
            for name, turn in turns.items()
        ]
        for thread in threads:
            thread.start()
        try:
            self._ship()
            return self._drain()
        finally:
            server.stop()
            until = time.monotonic() + STOP_SECONDS
            for thread in threads:
                thread.join(max(0.0, until - time.monotonic()))
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
        """Ship what is there; False when it could not be shipped."""
        state, shipper = self.state, self._shipper
        try:
            more = True
            while more:
                state.alive = time.monotonic()
                more = shipper.turn()
            if close:
                shipper.close()
        except SQLAlchemyError as error:
            state.errors["ledger"] += 1
            state.trouble = f"the ledger does not take records: {error}"
            log.warning("%s; they are held", state.trouble)
            return False
        except Exception as error:  # a full disk, or a defect: what is in the spool stays there
            state.errors["shipping"] += 1
            state.trouble = f"records cannot be shipped: {type(error).__name__}: {error}"
            log.warning("%s; they are held", state.trouble, exc_info=not isinstance(error, OSError))
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

    def _repeat(self, name: Part, turn: Callable[[], bool]) -> None:
        """Take turns until the end, at once again after one that returns True."""
        failures = 0
        while not self._stop.is_set():
            again = False
            try:
                again = turn()
                failures = 0
            except (SQLAlchemyError, PlatformError, BrokenVersionError) as error:
                log.warning("the %s waits: %s", name, error)
                failures += 1
            except Exception:
                log.exception("the %s failed", name)
                failures += 1
            if failures:
                self.state.errors[name] += 1
                self._stop.wait(_pause(self.settings.watch_seconds, failures))
            elif not again:
                self._stop.wait(self.settings.watch_seconds)

    def _watch(self) -> bool:
        self._opened = self._opened or self._open_watch()
        again = self._opened.turn()
        self.state.view = self._opened.view
        return again

    def _keep(self) -> bool:
        """Keep the ledger, unless another sidecar of production does, as far as is known.

        The lease only saves work: what is asked to be forgotten must not wait for a platform that
        does not answer or a watch that fails, and what several keepers do at once is done once.
        """
        model, version = self.settings.model, self.settings.version
        if self._lease.held is False or production_version(self._ledger, model) != version:
            return False
        return self._keeper.turn()

    def _open_watch(self) -> Watch:
        manifest = read_manifest(self.settings.model_folder)
        policy = override(manifest.drift, self.settings.drift_policy)
        return Watch(self.settings, self._ledger, self._lease, manifest, policy)


def _checked(name: str, policy: P, changes: dict[str, Any]) -> P:
    try:
        return override(policy, changes)
    except msgspec.ValidationError as error:
        raise SettingsError(f"WATCHKEEPER_{name}: {error}") from error


def _pause(seconds: float, failures: int) -> float:
    # A power that grows for hours would be too large a number for a float.
    return min(PAUSE_SECONDS, seconds * 2.0 ** min(failures, 10))
