"""The turns of the models that the installation no longer has.

Such a model ends in order: the gateway loses its route, its servers drain and ship their last
records, and what protected them goes last. The registry and the ledger keep everything, so the
model serves again as soon as it is configured again. Each step is idempotent, so several
controllers may take it at the same time, and there is no lease.
"""

import time
from collections.abc import Callable
from typing import Final

from watchkeeper.core.events import Event, ModelRemoved, kind_of
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import emit
from watchkeeper.platforms import Platform, PlatformError
from watchkeeper.rollout.metrics import RolloutMetrics
from watchkeeper.rollout.state import read_state
from watchkeeper.rollout.steps import StepController

REMOVED_MODELS: Final = "removed models"  # in logs and metrics; no model can have this name


class RemovedModels(StepController):
    """Takes one step of a removal in each turn.

    Args:
        platform: has what is left of these models.
        ledger: stores the event of each removal.
        metrics: shared with the controllers of the models.
        delay: seconds from the last configuration to the first step; until then somebody can
            correct a mistake.
        clock: returns the time in seconds since 1970.
        monotonic: returns seconds that never go back.
    """

    def __init__(
        self,
        platform: Platform,
        ledger: Ledger,
        metrics: RolloutMetrics,
        *,
        delay: float = 0.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            REMOVED_MODELS, REMOVED_MODELS, "removal", metrics, clock=clock, monotonic=monotonic
        )
        self.platform = platform
        self.ledger = ledger
        self._delay = delay

    def step(self) -> str:
        """Take a step of each removal that is due."""
        removed = self.platform.removed_models()
        names = ", ".join(removed)
        if not removed:
            return "no model was removed"
        if not self.platform.endpoints().hosts:
            # `helm upgrade --set` without the file of values drops all models at once.
            return f"the installation has no model at all, so {names} stays as it is"
        configured = self.platform.configured_at()
        if self.clock() < configured + self._delay:
            when = time.strftime("%H:%M:%S UTC", time.gmtime(configured + self._delay))
            return f"the installation no longer has {names}: out of service at {when}"
        problems = [problem for model in removed if (problem := self._remove(model, configured))]
        if problems:
            raise PlatformError("; ".join(problems))
        return f"the installation no longer has {names}: taking it out of service"

    def _remove(self, model: str, configured: float) -> str:
        """Take one step; return why it is not possible, or ""."""
        try:
            self._report(model, configured)
            self.platform.remove(model)
        except PlatformError as error:
            return str(error)
        return ""

    def _report(self, model: str, configured: float) -> None:
        """Store the event of a removal, and those that only the route has, before it is deleted."""
        route = self.platform.route(model)
        for pending in read_state(route)[0].pending_events:
            emit(self.ledger, pending)
        details = ModelRemoved(versions=tuple(sorted(self.platform.serving(model))))
        event = Event(
            id=f"{model}/{kind_of(details)}/{configured:.3f}",
            model=model,
            version=None,
            time=self.clock(),
            reason="the installation no longer has the model",
            details=details,
        )
        emit(self.ledger, event)
