"""The lease of a version: of its sidecars the one that holds it watches, and keeps the ledger."""

from collections.abc import Callable

from watchkeeper.contracts.names import serving_name
from watchkeeper.platforms import Platform


class Lease:
    """Opens the platform when it is first asked. ``held`` is what was found last, None if unknown.

    The lease is the version's and not the model's, because a lease can be held until its process
    ends: a version that was replaced stays warm, and must not keep its successor from watching.
    """

    def __init__(self, open_platform: Callable[[], Platform], model: str, version: int) -> None:
        self.held: bool | None = None
        self._name = f"watch-{serving_name(model, version)}"
        self._open_platform = open_platform
        self._platform: Platform | None = None

    def holder(self) -> Platform | None:
        """Return the platform while this process holds the lease.

        Raises:
            PlatformError: whether it does cannot be told now.
        """
        try:
            if self._platform is None:
                self._platform = self._open_platform()
            self.held = self._platform.acquire(self._name)
        except Exception:
            self.held = None
            raise
        return self._platform if self.held else None
