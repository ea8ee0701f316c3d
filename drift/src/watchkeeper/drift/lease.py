"""The lease of a version: of all its sidecars, one watches and does retention."""

import logging
from collections.abc import Callable

from watchkeeper.core.names import serving_name
from watchkeeper.platforms import Platform, PlatformError

log = logging.getLogger(__name__)


class WatchLease:
    """The lease of one version on a platform.

    The lease belongs to a version, not to a model, because a process may hold a lease until it
    ends. A version that was replaced stays warm, and must not prevent the new version from
    watching.

    ``held`` is the result of the last :meth:`acquire`; None if it is not known.
    """

    def __init__(self, open_platform: Callable[[], Platform], model: str, version: int) -> None:
        """Create the lease. ``open_platform`` is called at the first :meth:`acquire`."""
        self.held: bool | None = None
        self._name = f"watch-{serving_name(model, version)}"
        self._open_platform = open_platform
        self._platform: Platform | None = None

    def acquire(self) -> Platform | None:
        """Acquire or renew the lease; return the platform, or None if another process holds it.

        Raises:
            PlatformError: the platform does not answer.
        """
        try:
            if self._platform is None:
                self._platform = self._open_platform()
            self.held = self._platform.acquire(self._name)
        except Exception:
            self.held = None
            raise
        return self._platform if self.held else None

    def release(self) -> None:
        """Release the lease, so that another sidecar need not wait until it ends."""
        if self._platform is None or not self.held:
            return
        try:
            self._platform.release(self._name)
        except PlatformError as error:
            log.warning("the lease %s is not released, so it ends later: %s", self._name, error)
