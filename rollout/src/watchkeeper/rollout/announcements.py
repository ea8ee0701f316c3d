"""Events of a model where people look first: on a cluster, as Kubernetes Events.

The ledger has the events of all components: gate, drift watch, rollout. This controller hands the
new ones to the platform, which shows them with the objects that they are about. An announcement has
the id of its event, so one that is repeated is shown once. What the gateway does not do for the
model is a state, not an event of the ledger: it is announced while it lasts.
"""

import time
from collections.abc import Callable
from typing import Final

from watchkeeper.core import events as e
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import history
from watchkeeper.platforms import Announcement, Platform
from watchkeeper.rollout.metrics import RolloutMetrics
from watchkeeper.rollout.steps import StepController

KEPT_SECONDS: Final = 3600.0  # for how long a cluster keeps its Events
PROBLEM_SECONDS: Final = 15.0  # from one look at the gateway to the next
# These are many, or about persons, and nothing is wrong.
SILENT: Final = (e.RowsRemoved, e.SubjectForgotten, e.LabelContradicted, e.Unknown)
WARNINGS: Final = (
    e.RolledBack,
    e.GateRejected,
    e.NumberReused,
    e.RouteRepaired,
    e.ProductionUnregistered,
    e.ConceptDrifted,
    e.SensorBroken,
    e.WatchFailed,
    e.SpoolAbandoned,
    e.SpoolLost,
    e.RunFailed,
)
DRIFT_WARNINGS: Final = ("waiting-for-labels", "given-up")


class Announcements(StepController):
    """Announces the events of one model.

    Args:
        model: the model.
        platform: shows the announcements.
        ledger: has the events.
        metrics: shared with the other controllers.
        clock: returns the time in seconds since 1970.
        monotonic: returns seconds that never go back.
    """

    def __init__(
        self,
        model: str,
        platform: Platform,
        ledger: Ledger,
        metrics: RolloutMetrics,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            f"{model} (announcements)",
            model,
            "announcements",
            metrics,
            clock=clock,
            monotonic=monotonic,
        )
        self.model = model
        self.platform = platform
        self.ledger = ledger
        self._count = metrics.problems.labels(model)
        self._problems: list[str] = []
        self._read_at = -PROBLEM_SECONDS
        self._announced: set[str] = set()  # a cache: ids of announcements

    def step(self) -> str:
        """Announce what is new: problems first, because the ledger may be down."""
        problems = [self._problem(text) for text in self._read_problems()]
        self._announce(problems)
        recent = history(self.ledger, self.model, since=self.clock() - KEPT_SECONDS)
        events = [announcement(e) for e in recent if not isinstance(e.details, SILENT)]
        self._announce(events)
        self._announced &= {each.id for each in (*problems, *events)}
        return "; ".join(["announces events", *self._problems])

    def _read_problems(self) -> list[str]:
        """Return what the gateway does not do. It takes several calls, so not in each turn."""
        if not 0 <= self.clock() - self._read_at < PROBLEM_SECONDS:
            self._problems = self.platform.problems(self.model)
            self._read_at = self.clock()
            self._count.set(len(self._problems))
        return self._problems

    def _announce(self, announcements: list[Announcement]) -> None:
        for each in announcements:
            if each.id not in self._announced:
                self.platform.announce(each)
                self._announced.add(each.id)

    def _problem(self, text: str) -> Announcement:
        """Return what the platform shows of a problem, once an hour while it lasts."""
        period = self.clock() // KEPT_SECONDS
        return Announcement(
            id=f"{self.model}/problem/{period:.0f}/{text}",
            model=self.model,
            version=None,
            reason="GatewayProblem",
            message=text,
            warning=True,
            time=self.clock(),
        )


def announcement(event: e.Event) -> Announcement:
    """Return what the platform shows of an event."""
    return Announcement(
        id=event.id,
        model=event.model,
        version=event.version,
        reason=type(event.details).__name__,
        message=event.reason,
        warning=_is_warning(event.details),
        time=event.time,
    )


def _is_warning(details: e.EventDetails) -> bool:
    if isinstance(details, e.EpisodeChanged):
        return details.state in DRIFT_WARNINGS
    return isinstance(details, WARNINGS)
