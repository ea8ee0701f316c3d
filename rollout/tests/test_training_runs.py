"""A model gets a version by the code in force, and every failed run is reported once."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from watchkeeper.core.adoption import AdoptionRule
from watchkeeper.core.events import Event as LedgerEvent
from watchkeeper.core.events import GatePassed, RunFailed, TrainingData
from watchkeeper.core.names import adoption_run_name, code_run_name
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.episodes import Attempt, attempts, save_attempt
from watchkeeper.ledger.events import emit, history
from watchkeeper.platforms import PlatformError, TrainingRun
from watchkeeper.registry import CODE_TAG, RUN_TAG, RegisteredVersion, RegistryError
from watchkeeper.registry.foreign import identity
from watchkeeper.rollout.metrics import RolloutMetrics
from watchkeeper.rollout.training_runs import (
    COMPLETE_SECONDS,
    MAX_RETRY_SECONDS,
    RETRY_SECONDS,
    SETTLE_SECONDS,
    TrainingRuns,
)

NAME = "pump-failure"
FOREIGN = "pumps"
EACH, TAG = AdoptionRule(FOREIGN, "each"), AdoptionRule(FOREIGN, "tag")
RUN = code_run_name(NAME, "2.0")


class World:
    """Platform, registry and clock; runs end as a test says."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.states: dict[str, Any] = {}
        self.created: list[TrainingRun] = []
        self.codes: list[str] = []
        self.foreign: list[RegisteredVersion] = []
        self.configured = 0.0
        self.now = 1000.0
        self.up = True
        self.metrics = RolloutMetrics()
        self.killed = False
        self.outdated: set[str] = set()
        self.refused: set[str] = set()

    def runs(self, _model: str) -> dict[str, Any]:
        if not self.up:
            raise PlatformError("the platform is down")
        return dict(self.states)

    def create_run(self, run: TrainingRun) -> bool:
        if self.killed:
            raise PlatformError("killed")
        self.created.append(run)
        is_new = run.name not in self.states
        self.states.setdefault(run.name, "running")
        return is_new

    def run_reason(self, run: str) -> str:
        return f"training: exit code 2: no table ({run})"

    def is_refused(self, run: str) -> bool:
        return run in self.refused

    def is_outdated(self, run: str) -> bool:
        return run in self.outdated

    def run_log(self, run: str) -> str:
        return f"logs of {run}"

    def configured_at(self) -> float:
        return self.configured

    def versions(self, model: str) -> list[Any]:
        if model == FOREIGN:
            return self.foreign
        return [SimpleNamespace(tags={CODE_TAG: code}) for code in self.codes]

    def register_foreign(self, **tags: str) -> str:
        """Register a version of another name; returns the name of the run that adopts it."""
        number = len(self.foreign) + 1
        given = {key.replace("_", "."): value for key, value in tags.items()}
        self.foreign.append(RegisteredVersion(number, "", self.now, given))
        return adoption_run_name(NAME, identity(FOREIGN, self.foreign[-1]))

    def aliases(self, _model: str) -> dict[str, int]:
        return {"production": 3} if self.codes else {}

    def controller(
        self, code: str = "2.0", *, starts: bool = True, adopts: AdoptionRule | None = None
    ) -> TrainingRuns:
        clients: Any = self
        return TrainingRuns(
            NAME,
            clients,
            clients,
            self.ledger,
            self.metrics,
            code_version=code,
            starts=starts,
            adopts=adopts,
            clock=lambda: self.now,
            monotonic=lambda: self.now,
        )

    def turn(self, controller: TrainingRuns) -> str:
        wait = controller.turn()
        return wait.reason if wait else ""

    def failing(self) -> float | None:
        labels = {"model": NAME}
        return self.metrics.registry.get_sample_value(
            "watchkeeper_rollout_training_failing", labels
        )


@pytest.fixture
def world(ledger: Ledger) -> World:
    return World(ledger)


def gate_passed(code: str, run: str = RUN) -> LedgerEvent:
    details = GatePassed(
        run=run,
        trigger="first version",
        code_version=code,
        data=TrainingData("", 1, 1, "none"),
        mlflow_run="1",
    )
    return LedgerEvent("gate", NAME, 1, 1.0, "passed", details)


@pytest.mark.parametrize(
    ("codes", "trigger", "replaces"),
    [([], "first version", None), (["1.0"], "new code: 2.0", 3)],
)
def test_one_run_is_started_for_a_code_without_a_version(
    world: World, codes: list[str], trigger: str, replaces: int | None
) -> None:
    world.codes = codes
    for _ in range(2):  # with two controllers
        controller = world.controller()
        for _ in range(3):
            world.turn(controller)
    assert world.created == [TrainingRun(RUN, NAME, trigger, replaces=replaces)]
    assert [attempt.run for attempt in attempts(world.ledger, NAME)] == [RUN]


def test_no_run_is_started_for_a_code_with_a_version(world: World) -> None:
    world.codes = ["1.0", "2.0"]
    assert world.turn(world.controller()) == "there is a version by the code in force"
    assert world.created == []


def test_a_version_that_was_deleted_is_not_trained_again(world: World) -> None:
    emit(world.ledger, gate_passed("2.0"))
    assert world.turn(world.controller()) == "there is a version by the code in force"
    assert world.turn(world.controller("")) == "there is a version by the code in force"
    assert world.turn(world.controller("3.0")).endswith("started: first version")


def test_without_a_code_version_only_a_first_version_is_trained(world: World) -> None:
    world.turn(world.controller(""))
    assert [run.name for run in world.created] == [f"{NAME}-v0-a1"]
    world.states = {f"{NAME}-v0-a1": "succeeded"}
    world.codes = ["any"]
    assert world.turn(world.controller("")) == "there is a version by the code in force"


def test_a_failed_run_is_tried_again_after_a_delay_that_doubles(world: World) -> None:
    controller = world.controller()
    started: list[float] = []
    while len(started) < 12:
        reason = world.turn(controller)
        if "started" in reason:
            started.append(world.now)
            world.states[world.created[-1].name] = "failed"
        else:
            assert "has made no version; tried again at 1970-01-0" in reason
            assert world.failing() == 1
        world.now += RETRY_SECONDS / 10
    delays = [later - earlier for earlier, later in itertools.pairwise(started)]
    assert delays[:3] == [RETRY_SECONDS, 2 * RETRY_SECONDS, 4 * RETRY_SECONDS]
    assert max(delays) == MAX_RETRY_SECONDS
    assert [run.name for run in world.created[:3]] == [RUN, f"{RUN}-r2", f"{RUN}-r3"]


def test_a_failed_run_is_tried_again_at_once_after_a_configuration(world: World) -> None:
    controller = world.controller()
    world.turn(controller)
    world.states[RUN] = "failed"
    world.now += 1
    assert "has made no version" in world.turn(controller)
    world.configured = world.now
    assert "has made no version" in world.turn(controller), "its objects are still written"
    world.now += SETTLE_SECONDS
    assert world.turn(controller) == f"run {RUN}-r2 started: first version"
    world.states[f"{RUN}-r2"] = "failed"
    world.now += SETTLE_SECONDS
    assert "has made no version" in world.turn(controller)


def test_a_refused_run_is_tried_again_only_after_a_configuration(world: World) -> None:
    controller = world.controller()
    world.turn(controller)
    world.states[RUN], world.refused = "failed", {RUN}
    world.now += 100 * MAX_RETRY_SECONDS
    assert world.turn(controller) == (
        f"run {RUN} was refused; it is tried again after the next configuration, or by "
        f"'watchkeeper train {NAME}'"
    )
    assert world.failing() == 1
    world.configured = world.now
    world.now += SETTLE_SECONDS
    assert world.turn(controller) == f"run {RUN}-r2 started: first version"


def test_a_run_that_hangs_is_not_waited_for_once_its_template_is_corrected(world: World) -> None:
    controller = world.controller()
    world.turn(controller)
    assert world.turn(controller) == "waits for the end of a run"
    world.outdated = {RUN}
    assert world.turn(controller) == f"run {RUN}-r2 started: first version"
    assert world.turn(controller) == "waits for the end of a run"
    assert world.turn(world.controller("3.0")) == "waits for the end of a run"
    world.outdated = {RUN, f"{RUN}-r2"}
    assert world.turn(world.controller("3.0")).endswith("started: first version")


def test_a_run_that_succeeds_ends_the_failure(world: World) -> None:
    controller = world.controller()
    world.turn(controller)
    world.states[RUN] = "failed"
    world.turn(controller)
    assert world.failing() == 1
    world.codes = ["2.0"]
    world.turn(controller)
    assert world.failing() == 0


def test_nothing_is_started_while_another_run_of_the_model_runs(world: World) -> None:
    world.states["by-hand"] = "running"
    assert world.turn(world.controller()) == "waits for the end of a run"
    assert world.created == []


def test_a_turn_that_is_killed_before_the_run_exists_is_completed(world: World) -> None:
    world.killed = True
    assert world.turn(world.controller()) == ""
    assert [attempt.run for attempt in attempts(world.ledger, NAME)] == [RUN]
    world.killed = False
    world.turn(world.controller())
    assert [run.name for run in world.created] == [RUN]


def test_a_deleted_run_counts_as_failed(world: World) -> None:
    controller = world.controller()
    world.turn(controller)
    world.states.clear()
    world.now += COMPLETE_SECONDS
    assert "has made no version" in world.turn(controller)
    world.now += RETRY_SECONDS
    assert world.turn(controller) == f"run {RUN}-r2 started: first version"


def test_every_failed_run_is_reported_once_with_its_reason(world: World) -> None:
    save_attempt(world.ledger, Attempt("by-hand", None, NAME, "by hand", 1.0))
    world.states = {"by-hand": "failed", "other": "failed", "good": "succeeded"}
    for _ in range(2):  # with two controllers
        controller = world.controller(starts=False)
        for _ in range(2):
            assert world.turn(controller) == "no run is started automatically"
    found = history(world.ledger, NAME, kind=RunFailed)
    assert [event.details for event in found] == [
        RunFailed(run="by-hand", log="logs of by-hand"),
        RunFailed(run="other", log="logs of other"),
    ]
    assert found[0].reason == "training: exit code 2: no table (by-hand)"
    assert world.created == []


def test_a_dependency_that_does_not_answer_is_asked_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = world.controller()
    world.up = False
    assert controller.turn() is None
    world.up, world.now = True, world.now + 60

    def fail(_model: str) -> list[Any]:
        raise RegistryError("not up yet")

    with monkeypatch.context() as patch:
        patch.setattr(world, "versions", fail)
        assert controller.turn() is None
    world.now += 60
    assert "started" in world.turn(controller)


def test_every_new_version_of_another_name_is_adopted_once(world: World) -> None:
    controller = world.controller(adopts=EACH)
    assert world.turn(controller) == "there is no version in MLflow to adopt"
    first = world.register_foreign()
    assert world.turn(controller) == f"run {first} started: adopts models:/pumps/1"
    (run,) = world.created
    assert (run.name, run.parameters) == (first, {"adopt": "models:/pumps/1"})
    assert world.turn(controller) == "waits for the end of a run"
    world.states[first] = "succeeded"
    emit(world.ledger, gate_passed("2.0", first))
    for each in (controller, world.controller(adopts=EACH)):
        assert world.turn(each) == "there is a version by the code in force"
    world.now += 10.0
    second = world.register_foreign()
    world.turn(world.controller(adopts=EACH))
    assert [run.name for run in world.created] == [first, second]
    assert [each.trigger for each in attempts(world.ledger, NAME)][-1] == "adopts models:/pumps/2"


def test_versions_that_training_runs_have_registered_are_not_adopted(world: World) -> None:
    world.register_foreign(**{RUN_TAG: "a-run"})
    assert world.turn(world.controller(adopts=EACH)) == "there is no version in MLflow to adopt"


def test_only_a_version_with_the_tag_of_the_model_is_adopted(world: World) -> None:
    world.register_foreign()
    world.register_foreign(watchkeeper_adopt="another-model")
    controller = world.controller(adopts=TAG)
    assert world.turn(controller) == "there is no version in MLflow to adopt"
    tagged = world.register_foreign(watchkeeper_adopt=NAME)
    world.register_foreign()
    assert world.turn(controller) == f"run {tagged} started: adopts models:/pumps/3"


def test_nothing_is_adopted_where_a_person_does_it(world: World) -> None:
    world.register_foreign()
    by_hand = world.controller(adopts=AdoptionRule(FOREIGN, "hand"))
    assert world.turn(by_hand) == "there is no version in MLflow to adopt"
    assert not world.created


def test_new_code_adopts_the_same_version_again(world: World) -> None:
    first = world.register_foreign()
    world.turn(world.controller(adopts=EACH))
    world.states[first] = "succeeded"
    emit(world.ledger, gate_passed("2.0", first))
    world.now += 3600.0
    assert world.turn(world.controller("3.0", adopts=EACH)).startswith(f"run {first}-r2 started")
    assert world.created[-1].parameters == {"adopt": "models:/pumps/1"}


def test_a_turn_that_was_killed_starts_the_same_adoption(world: World) -> None:
    first = world.register_foreign()
    world.killed = True
    world.turn(world.controller(adopts=EACH))
    world.killed = False
    world.turn(world.controller(adopts=EACH))
    assert [(run.name, run.parameters) for run in world.created] == [
        (first, {"adopt": "models:/pumps/1"})
    ]
