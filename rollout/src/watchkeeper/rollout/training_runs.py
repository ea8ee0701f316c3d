"""The training runs of one model: report those that failed, and train for new code.

The level is simple: the model has a version by the code in force, or a run tries to make one. A
model that adopts versions of MLflow has one of the newest that it is to adopt. A run
that failed is tried again after a delay that doubles with each failure, or at once after somebody
has configured the installation again. Its cause may be gone by then: a Secret, a password, an
image. A run that was refused, for a defect of the declaration or of the data, is tried again only
after somebody has configured the installation again, or by a command. A run happens once by its
name, so several controllers may do this at the same time.
"""

import math
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from watchkeeper.core.adoption import AdoptionRule
from watchkeeper.core.events import Event, GateDecided, GatePassed, GateRejected, RunFailed, kind_of
from watchkeeper.core.names import (
    PRODUCTION,
    adoption_run_name,
    code_run_name,
    is_try,
    next_try,
    registered_uri,
    run_name,
)
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.episodes import Attempt, attempts, save_attempt
from watchkeeper.ledger.events import emit, history
from watchkeeper.platforms import Platform, RunState, TrainingRun
from watchkeeper.registry import CODE_TAG, RUN_TAG, Registry
from watchkeeper.registry.foreign import identity, newest_foreign
from watchkeeper.rollout.metrics import RolloutMetrics
from watchkeeper.rollout.steps import StepController

RETRY_SECONDS: Final = 300.0  # from the start of a failed run to the next one, doubled each time
MAX_RETRY_SECONDS: Final = 6 * 3600.0
SETTLE_SECONDS: Final = (
    60.0  # `helm upgrade` writes the template of the runs after the configuration
)
COMPLETE_SECONDS: Final = (
    60.0  # a run that a killed turn has not created is created within this time
)
MAX_TRIGGER: Final = 255  # characters that the ledger stores


class Wanted(NamedTuple):
    """A version that a model should have: the name of its first run, and what it adopts."""

    base: str
    adopts: str = ""

    def is_for(self, run: str) -> bool:
        """Whether a run is one of those for this version."""
        return is_try(run, self.base)


class TrainingRuns(StepController):
    """Takes the turns of a model's training runs.

    Args:
        model: the model.
        platform: shows runs, and starts them.
        registry: has the versions of the model.
        ledger: has the attempts and the decisions of the gate.
        metrics: shared with the other controllers.
        code_version: the version of the code in force; "" asks for a first version only.
        starts: start runs; otherwise failed runs are reported, and nothing else.
        adopts: which versions of MLflow the model adopts; None if its runs fit estimators.
        clock: returns the time in seconds since 1970.
        monotonic: returns seconds that never go back.
    """

    def __init__(
        self,
        model: str,
        platform: Platform,
        registry: Registry,
        ledger: Ledger,
        metrics: RolloutMetrics,
        *,
        code_version: str = "",
        starts: bool = True,
        adopts: AdoptionRule | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            f"{model} (training)", model, "training", metrics, clock=clock, monotonic=monotonic
        )
        self.model = model
        self.platform = platform
        self.registry = registry
        self.ledger = ledger
        self.code_version = code_version
        self.starts = starts
        self.adopts = adopts
        self._metrics = metrics
        self._reported: set[str] = set()  # a cache: names of failed runs
        self._made: set[str] = set()  # a cache: a version by the code stays one

    def step(self) -> str:
        """Report failed runs, and start one if the model needs it."""
        runs = self.platform.runs(self.model)
        self._report_failures(runs)
        if not self.starts:
            return "no run is started automatically"
        wanted = self._wanted()
        if wanted is None:
            return "there is no version in MLflow to adopt"
        if wanted.base not in self._made and self._has_version(wanted):
            self._made.add(wanted.base)
        is_made = wanted.base in self._made
        own = [] if is_made else self._attempts(wanted)
        is_failing = len(own) > 1 or (bool(own) and runs.get(own[-1].run) == "failed")
        self._metrics.training_failing.labels(self.model).set(is_failing)
        if is_made:
            return "there is a version by the code in force"
        running = [run for run, state in runs.items() if state == "running"]
        # A run that hangs, such as with the name of an image that does not exist, is not waited for
        # once the name is corrected.
        if not all(self.platform.is_outdated(run) for run in running):
            return "waits for the end of a run"
        return self._train(wanted, own, runs, is_hanging=bool(running))

    def _train(
        self, wanted: Wanted, own: list[Attempt], runs: dict[str, RunState], *, is_hanging: bool
    ) -> str:
        """Start the first run for what is wanted or the next one, if it is due."""
        if not own:
            return self._start(wanted.base, wanted)
        last = own[-1]
        if last.run not in runs and self.clock() < last.time + COMPLETE_SECONDS:
            return self._create(last, wanted)  # a turn was killed
        if not is_hanging and (due := self._due(own, runs)) > self.clock():
            if due == math.inf:
                return (
                    f"run {last.run} was refused; it is tried again after the next configuration, "
                    f"or by 'watchkeeper train {self.model}'"
                )
            when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(due))
            return f"run {last.run} has made no version; tried again at {when}"
        return self._start(next_try(wanted.base, [attempt.run for attempt in own]), wanted)

    def _wanted(self) -> Wanted | None:
        """Return the version that the model should have; None if there is nothing to adopt."""
        if self.adopts is None:
            code = self.code_version
            return Wanted(code_run_name(self.model, code) if code else run_name(self.model, 0, 1))
        if self.adopts.when == "hand":
            return None
        name, adopter = self.adopts.model, self.model if self.adopts.when == "tag" else ""
        found = newest_foreign(self.registry, name, adopter)
        if found is None:
            return None
        uri = registered_uri(name, found.version)
        return Wanted(adoption_run_name(self.model, identity(name, found)), uri)

    def _attempts(self, wanted: Wanted) -> list[Attempt]:
        """Return the attempts for what is wanted, oldest first."""
        return [each for each in attempts(self.ledger, self.model) if wanted.is_for(each.run)]

    def _due(self, own: list[Attempt], runs: dict[str, RunState]) -> float:
        """Return when the next attempt may start: after the delay, or after a configuration."""
        last, configured = own[-1].time, self.platform.configured_at()
        delayed = last + min(RETRY_SECONDS * 2.0 ** (len(own) - 1), MAX_RETRY_SECONDS)
        if runs.get(own[-1].run) == "failed" and self.platform.is_refused(own[-1].run):
            delayed = math.inf
        return min(delayed, configured + SETTLE_SECONDS) if configured > last else delayed

    def _has_version(self, wanted: Wanted) -> bool:
        """Return whether a version is what is wanted, also if somebody has deleted it since then.

        Any version by the code will do, unless a run adopts a certain one.
        """
        events = history(self.ledger, self.model, kind=(GatePassed, GateRejected))
        decided = [e.details for e in events if isinstance(e.details, GateDecided)]

        def fits(run: str, code: str) -> bool:
            by_code = self.code_version in ("", code)
            return by_code and (self.adopts is None or wanted.is_for(run))

        if any(fits(details.run, details.code_version) for details in decided):
            return True
        tags = [version.tags for version in self.registry.versions(self.model)]
        return any(fits(each.get(RUN_TAG, ""), each.get(CODE_TAG, "")) for each in tags)

    def _start(self, run: str, wanted: Wanted) -> str:
        """Store an attempt in the ledger, then create its run."""
        production = self.registry.aliases(self.model).get(PRODUCTION)
        trigger = f"new code: {self.code_version}" if production else "first version"
        if wanted.adopts:
            trigger = f"adopts {wanted.adopts}"
        attempt = Attempt(run, None, self.model, trigger[:MAX_TRIGGER], self.clock())
        save_attempt(self.ledger, attempt)
        return self._create(attempt, wanted)

    def _create(self, attempt: Attempt, wanted: Wanted) -> str:
        production = self.registry.aliases(self.model).get(PRODUCTION)
        parameters = {"adopt": wanted.adopts} if wanted.adopts else {}
        run = TrainingRun(
            attempt.run,
            self.model,
            attempt.trigger,
            replaces=production,
            parameters=parameters,
        )
        self.platform.create_run(run)
        return f"run {attempt.run} started: {attempt.trigger}"

    def _report_failures(self, runs: dict[str, RunState]) -> None:
        """Store an event for each failed run, once."""
        failed = {run for run, state in runs.items() if state == "failed"}
        for run in sorted(failed - self._reported):
            reason = self.platform.run_reason(run) or "see its log"
            details = RunFailed(run=run, log=self.platform.run_log(run))
            event = Event(
                id=f"{self.model}/{kind_of(details)}/{run}",
                model=self.model,
                version=None,
                time=self.clock(),
                reason=reason,
                details=details,
            )
            emit(self.ledger, event)
        self._reported = failed
