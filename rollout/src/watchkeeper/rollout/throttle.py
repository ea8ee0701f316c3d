"""Back-off from a dependency that fails: wait longer each time, and say so once."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DELAYS = (1.0, 2.0, 4.0, 8.0, 15.0)  # seconds before the next try

log = logging.getLogger(__name__)


class UnavailableError(RuntimeError):
    """A dependency has failed, or is not tried again yet."""


class Throttle:
    """Guards the calls of one dependency; ``failures`` counts those in a row."""

    def __init__(
        self,
        name: str,
        errors: tuple[type[Exception], ...],
        count: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.failures = 0
        self._errors = errors
        self._count = count
        self._clock = clock
        self._retry_at = float("-inf")
        self._said = ""

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Run a block that uses the dependency.

        Raises:
            UnavailableError: it failed in the block, or a moment ago, and then the block is not
                run at all.
        """
        if self._clock() < self._retry_at:
            raise UnavailableError(self._said)
        try:
            yield
        except self._errors as error:
            self._fail(error)
            raise UnavailableError(self._said) from error
        if self.failures:
            log.info("%s: works again after %d failed tries", self.name, self.failures)
        self.failures = 0

    def _fail(self, error: Exception) -> None:
        delay = DELAYS[min(self.failures, len(DELAYS) - 1)]
        self.failures += 1
        self._count()
        self._retry_at = self._clock() + delay
        self._said = f"{self.name}: {type(error).__name__}: {error}"
        if self.failures == 1:
            log.warning("%s; waiting, next try in %g s", self._said, delay)
