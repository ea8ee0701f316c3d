"""Back-off: do not call a failing dependency in every turn.

A dependency that is down costs each call its time limit. After a failure the next calls therefore
fail at once until a delay is over. The delay grows with each failure in a row. One log line reports
the first failure, another one the recovery.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

DELAYS: Final = (1.0, 2.0, 4.0, 8.0, 15.0)  # seconds before the next try

log = logging.getLogger(__name__)


class DependencyUnavailableError(RuntimeError):
    """A dependency has failed, or is not called before its delay is over."""


class Throttle:
    """Guards the calls of one dependency. ``failures`` counts the failures in a row.

    Args:
        name: the dependency, for log and errors.
        errors: the exceptions that mean that the dependency is unavailable.
        count: called for each failure.
        clock: returns seconds that never go back.

    Example:
        >>> throttle = Throttle("registry", (RegistryError,), lambda: None)
        >>> with throttle.guard():
        ...     aliases = registry.aliases("pump-failure")
    """

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
        self._message = ""

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Run a block that uses the dependency.

        Raises:
            DependencyUnavailableError: the block failed, or it was not run because the delay after
                an earlier failure is not over.
        """
        if self._clock() < self._retry_at:
            raise DependencyUnavailableError(self._message)
        try:
            yield
        except self._errors as error:
            self._record_failure(error)
            raise DependencyUnavailableError(self._message) from error
        if self.failures:
            log.info("%s: works again after %d failed tries", self.name, self.failures)
        self.failures = 0

    def _record_failure(self, error: Exception) -> None:
        delay = DELAYS[min(self.failures, len(DELAYS) - 1)]
        self.failures += 1
        self._count()
        self._retry_at = self._clock() + delay
        self._message = f"{self.name}: {type(error).__name__}: {error}"
        if self.failures == 1:
            log.warning("%s; waiting, next try in %g s", self._message, delay)
