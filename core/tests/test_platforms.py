"""What every platform does: the same tests on a laptop's processes and on a cluster's objects."""

import concurrent.futures
from abc import ABC, abstractmethod
from collections.abc import Iterator

import kube_system
import local_system
import pytest
from kube_system import KubeSystem
from local_system import MODEL, OTHER
from waiting import wait_for

from watchkeeper.platforms import Asks, Platform, PlatformError, Route, Run, Serving
from watchkeeper.platforms.local import LocalPlatform


class System(ABC):
    """An installation of two models. ``platform`` is where a test acts."""

    platform: Platform

    @abstractmethod
    def open(self) -> Platform:
        """Open the platform as another process would."""

    @abstractmethod
    def settle(self) -> None:
        """Let controllers do their part, where none run by themselves."""

    def serve(self, *versions: int) -> None:
        for version in versions:
            self.platform.serve(MODEL, version)
        wait_for(lambda: all(self._state(version) == "ready" for version in versions))

    def route(self, route: Route) -> None:
        self.platform.set_route(MODEL, route)
        wait_for(self._confirmed)

    def _confirmed(self) -> bool:
        self.settle()
        return self.platform.confirmed(MODEL)

    def _state(self, version: int) -> str:
        self.settle()
        return self.platform.serving(MODEL)[version].state


class Local(System):
    def __init__(self, platform: LocalPlatform) -> None:
        self.platform = platform
        self.folder = platform.home.folder

    def open(self) -> Platform:
        return LocalPlatform(self.folder)

    def settle(self) -> None:
        pass  # they run


class Kube(System):
    def __init__(self, system: KubeSystem) -> None:
        self.system = system
        self.platform = self.open()

    def open(self) -> Platform:
        return self.system.open()

    def settle(self) -> None:
        self.system.settle(MODEL)


@pytest.fixture(scope="module", params=["local", "kube"])
def system(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    if request.param == "kube":
        with kube_system.installed(request.getfixturevalue("api_server")) as system:
            yield Kube(system)
    else:
        trained = tmp_path_factory.mktemp("trained")
        folder = tmp_path_factory.mktemp("home")
        with local_system.running(folder, STAND_IN_FOLDER=str(trained)) as platform:
            yield Local(platform)


def test_before_anything_there_is_nothing(system: System) -> None:
    assert system.platform.serving(OTHER) == {}
    assert system.platform.runs(OTHER) == {}
    assert system.platform.route(OTHER) is None
    assert not system.platform.confirmed(OTHER)
    assert system.platform.asks(OTHER) == Asks()
    system.platform.retire(OTHER, 1)


def test_what_a_person_wants_is_kept(system: System) -> None:
    other = system.open()
    system.platform.ask(MODEL, lambda _: Asks(paused=True, promote=3, abort=2))
    assert other.asks(MODEL) == Asks(paused=True, promote=3, abort=2)
    assert other.asks(OTHER) == Asks()
    other.ask(MODEL, lambda asks: asks.without({"promote": 3, "abort": 1}))
    assert system.platform.asks(MODEL) == Asks(paused=True, abort=2)


def test_no_change_of_what_people_want_is_lost(system: System) -> None:
    system.platform.ask(MODEL, lambda _: Asks(promote=0))
    others = [system.open() for _ in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda other: other.ask(MODEL, _once_more), others * 3))
    assert system.platform.asks(MODEL) == Asks(promote=24)


def _once_more(asks: Asks) -> Asks:
    return Asks(promote=(asks.promote or 0) + 1)


def test_a_run_is_created_once_however_many_ask(system: System) -> None:
    run = Run("once", MODEL, 'it\'s "drift"; 100% #sure\n$HOME', parameters={"a": "%(b)s 'c'"})
    others = [system.open() for _ in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda other: other.create_run(run), others))
    assert sorted(created) == [False] * 7 + [True]
    assert system.platform.runs(MODEL)["once"] in ("running", "succeeded")
    assert not system.platform.create_run(run)


def test_a_version_is_served_once_and_its_share_and_state_are_one_write(system: System) -> None:
    system.serve(1, 2)
    system.platform.serve(MODEL, 1)
    assert system.platform.serving(MODEL) == {1: Serving(1, "ready"), 2: Serving(2, "ready")}
    for route in (
        Route({1: 100}, {"phase": "steady", "reason": "é \"'$\n"}),
        Route({1: 75, 2: 25}, {"phase": "canary"}),
        Route({1: 75, 2: 25}, {"phase": "canary", "since": "1.5"}),
        Route({2: 100}),
    ):
        system.route(route)
        assert system.platform.route(MODEL) == system.open().route(MODEL) == route


def test_what_cannot_be_routed_changes_nothing(system: System) -> None:
    system.serve(1)
    system.route(Route({1: 100}, {"phase": "steady"}))
    for wrong, why in (
        (Route({1: 50, 9: 50}), "version 9: not served"),
        (Route({1: 90}), "must add up to 100"),
        (Route({1: 110, 2: -10}), "must add up to 100"),
    ):
        with pytest.raises(PlatformError, match=why):
            system.platform.set_route(MODEL, wrong)
    with pytest.raises(PlatformError, match="not a model of this"):
        system.platform.set_route("nothing", Route({1: 100}))
    assert system.platform.route(MODEL) == Route({1: 100}, {"phase": "steady"})


def test_a_version_with_traffic_is_not_retired_and_one_without_goes(system: System) -> None:
    system.serve(1, 2)
    system.route(Route({1: 100}))
    with pytest.raises(PlatformError, match="100 % of the traffic"):
        system.platform.retire(MODEL, 1)

    def gone() -> bool:
        system.platform.retire(MODEL, 2)
        system.settle()
        return 2 not in system.platform.serving(MODEL)

    wait_for(gone)
    assert system.platform.serving(MODEL)[1].state == "ready"


def test_a_lease_has_one_holder(system: System) -> None:
    other = system.open()
    assert system.platform.acquire("shared")
    assert not other.acquire("shared")
    assert other.acquire("of-its-own")
    assert system.platform.acquire("shared")


def test_a_lease_that_is_let_go_is_free_at_once(system: System) -> None:
    other = system.open()
    assert system.platform.acquire("shared")
    other.release("shared")  # which it does not hold
    assert not other.acquire("shared")
    system.platform.release("shared")
    assert other.acquire("shared")
    assert not system.platform.acquire("shared")
    system.platform.release("nobody's")
