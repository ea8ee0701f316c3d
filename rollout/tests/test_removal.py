"""A model that the installation no longer has is taken out of service, and the ledger says so."""

from pathlib import Path

from watchkeeper.core.events import Event, ModelRemoved, Promoted
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import history
from watchkeeper.platforms import Endpoints, PlatformError, Route
from watchkeeper.rollout.metrics import RolloutMetrics
from watchkeeper.rollout.removal import REMOVED_MODELS, RemovedModels
from watchkeeper.rollout.state import RolloutState

NAME = "pump-failure"
PENDING = Event("pump-failure/v3/promoted/1.000", NAME, 3, 1.0, "no check has failed", Promoted())


class Rest:
    """What is left of a model: a route, then servers, each of which goes with one step."""

    def __init__(self) -> None:
        state = RolloutState(
            phase="steady", production=3, started=1.0, changed=7.5, pending_events=(PENDING,)
        )
        self.written: Route | None = Route({3: 100}, state.dump())
        self.left = ["route", "servers", "policies"]
        self.hosts = {"valve-leak": "valve-leak"}
        self.up = True
        self.configured = 7.5
        self.others = 0

    def configured_at(self) -> float:
        return self.configured

    def serving(self, _model: str) -> dict[int, None]:
        return {3: None} if "servers" in self.left else {}

    def removed_models(self) -> list[str]:
        if not self.up:
            raise PlatformError("the platform is down")
        return ["blocked"] * self.others + ([NAME] if self.left else [])

    def endpoints(self) -> Endpoints:
        return Endpoints("", "", "", "", "", self.hosts)

    def route(self, model: str) -> Route | None:
        return self.written if model == NAME else None

    def remove(self, model: str) -> None:
        if model != NAME:
            raise PlatformError(f"HTTPRoute {model} is not Watchkeeper's")
        if self.left.pop(0) == "route":
            self.written = None


def controller(rest: Rest, ledger: Ledger, now: float = 100.0, delay: float = 0.0) -> RemovedModels:
    metrics = RolloutMetrics()
    return RemovedModels(rest, ledger, metrics, delay=delay, clock=lambda: now)  # type: ignore[arg-type]


def test_a_removed_model_is_taken_out_of_service_step_by_step(ledger: Ledger) -> None:
    rest = Rest()
    removed = controller(rest, ledger)
    assert removed.name == REMOVED_MODELS
    while rest.left:
        before = len(rest.left)
        wait = removed.turn()
        assert wait is not None
        assert NAME in wait.reason
        assert len(rest.left) == before - 1
    assert removed.turn() is not None
    found = history(ledger, NAME)
    assert [event.kind for event in found] == ["promoted", "model-removed"]
    assert found[0] == PENDING, "an event that only the route had"
    assert found[1].details == ModelRemoved(versions=(3,))


def test_a_controller_that_is_killed_before_the_route_is_deleted_reports_once(
    ledger: Ledger,
) -> None:
    rest = Rest()
    for now in (100.0, 200.0):
        rest.left = ["nothing yet", "route", "servers"]
        controller(rest, ledger, now).turn()
    assert [event.kind for event in history(ledger, NAME)].count("model-removed") == 1


def test_an_installation_that_has_lost_all_its_models_ends_none(ledger: Ledger) -> None:
    rest = Rest()
    rest.hosts = {}
    wait = controller(rest, ledger).turn()
    assert wait is not None
    assert "no model at all" in wait.reason
    assert rest.left == ["route", "servers", "policies"]
    assert history(ledger, NAME) == []


def test_nothing_is_removed_while_the_ledger_cannot_report_it(tmp_path: Path) -> None:
    rest = Rest()
    nowhere = Ledger(f"sqlite:///{tmp_path / 'missing' / 'ledger.db'}")
    assert controller(rest, nowhere).turn() is None
    assert rest.left == ["route", "servers", "policies"]
    nowhere.close()


def test_a_platform_that_does_not_answer_is_asked_again(ledger: Ledger) -> None:
    rest = Rest()
    rest.up = False
    now = 0.0
    removed = RemovedModels(rest, ledger, RolloutMetrics(), monotonic=lambda: now)  # type: ignore[arg-type]
    assert removed.turn() is None
    rest.up, now = True, 60.0
    assert removed.turn() is not None
    assert rest.left == ["servers", "policies"]


def test_nothing_is_removed_until_somebody_could_correct_a_mistake(ledger: Ledger) -> None:
    rest = Rest()
    rest.configured = 90.0
    wait = controller(rest, ledger, now=100.0, delay=600.0).turn()
    assert wait is not None
    assert wait.reason.endswith("out of service at 00:11:30 UTC")
    assert rest.left == ["route", "servers", "policies"]
    controller(rest, ledger, now=691.0, delay=600.0).turn()
    assert rest.left == ["servers", "policies"]


def test_a_model_that_cannot_be_removed_does_not_block_another(ledger: Ledger) -> None:
    rest = Rest()
    rest.others = 1
    assert controller(rest, ledger).turn() is None, "the error is logged and counted"
    assert rest.left == ["servers", "policies"]
