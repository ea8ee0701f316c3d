"""Turns of a controller that takes one step and needs no lease.

Each step is idempotent, so several processes may take it at the same time.
"""

import abc
import logging
import time
from collections.abc import Callable

from watchkeeper.ledger.errors import LedgerError
from watchkeeper.platforms import PlatformError
from watchkeeper.registry import RegistryError
from watchkeeper.rollout.actions import Wait
from watchkeeper.rollout.metrics import RolloutMetrics
from watchkeeper.rollout.throttle import DependencyUnavailableError, Throttle

log = logging.getLogger(__name__)


class StepController(abc.ABC):
    """Takes a step in each turn. Errors are logged and counted, and the next turn tries again.

    Args:
        name: the name for the log and for the health.
        model: the model, in the metric of errors.
        what: what the steps are about, in the same metric.
        metrics: shared with the other controllers.
        clock: returns the time in seconds since 1970.
        monotonic: returns seconds that never go back.
    """

    def __init__(
        self,
        name: str,
        model: str,
        what: str,
        metrics: RolloutMetrics,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.clock = clock
        self._throttle = Throttle(
            name,
            (PlatformError, RegistryError, LedgerError, OSError),
            metrics.errors.labels(model, what).inc,
            monotonic,
        )
        self._count_defect = metrics.errors.labels(model, "defect").inc
        self._logged = ""

    @abc.abstractmethod
    def step(self) -> str:
        """Take a step, and return what was done or what it waits for."""

    def turn(self) -> Wait | None:
        """Take one turn; None while a dependency does not answer."""
        try:
            with self._throttle.guard():
                reason = self.step()
        except DependencyUnavailableError:
            return None
        except Exception:  # a defect here must not stop the rollouts
            log.exception("%s: the turn failed", self.name)
            self._count_defect()
            return None
        if reason != self._logged:
            log.info("%s: %s", self.name, reason)
            self._logged = reason
        return Wait(reason, reason)

    def end(self) -> None:  # noqa: B027 - the loop calls it, and there is nothing to do
        """There is no lease to release."""
