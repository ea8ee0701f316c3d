"""The contract of the interface :class:`Platform`, checked with both implementations."""

import concurrent.futures
from abc import ABC, abstractmethod
from collections.abc import Iterator

import kube_system
import local_system
import pytest
from kube_system import KubeSystem
from local_system import MODEL, OTHER
from waiting import wait_for

from watchkeeper.platforms import (
    Platform,
    PlatformError,
    RolloutCommands,
    Route,
    ServingStatus,
    TrainingRun,
)
from watchkeeper.platforms.local import LocalPlatform


class System(ABC):
    """A system with two models, which a test changes with ``platform``."""

    platform: Platform

    @abstractmethod
    def open(self) -> Platform:
        """Open the platform again, as another process does."""

    @abstractmethod
    def settle(self) -> None:
        """Do the work of the controllers that do not run in tests."""

    @abstractmethod
    def snapshot(self) -> dict[str, object]:
        """Return a value that is equal as long as nothing has changed."""

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
        wait_for(lambda: "running" not in self.platform.runs(MODEL).values())
        self.platform.reconcile(MODEL)

    def snapshot(self) -> dict[str, object]:
        return local_system.snapshot(LocalPlatform(self.folder))


class Kube(System):
    def __init__(self, system: KubeSystem) -> None:
        self.system = system
        self.platform = self.open()

    def open(self) -> Platform:
        return self.system.open()

    def settle(self) -> None:
        self.system.settle(MODEL)

    def snapshot(self) -> dict[str, object]:
        return self.system.snapshot()


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


def test_a_new_system_is_empty(system: System) -> None:
    assert system.platform.serving(OTHER) == {}
    assert system.platform.runs(OTHER) == {}
    assert system.platform.route(OTHER) is None
    assert not system.platform.confirmed(OTHER)
    assert system.platform.commands(OTHER) == RolloutCommands()
    system.platform.retire(OTHER, 1)


def test_commands_are_stored_until_they_are_withdrawn(system: System) -> None:
    other = system.open()
    system.platform.change_commands(
        MODEL, lambda _: RolloutCommands(paused=True, promote=3, abort=2)
    )
    assert other.commands(MODEL) == RolloutCommands(paused=True, promote=3, abort=2)
    assert other.commands(OTHER) == RolloutCommands()
    other.change_commands(MODEL, lambda commands: commands.without({"promote": 3, "abort": 1}))
    assert system.platform.commands(MODEL) == RolloutCommands(paused=True, abort=2)


def test_concurrent_changes_of_commands_are_not_lost(system: System) -> None:
    system.platform.change_commands(MODEL, lambda _: RolloutCommands(promote=0))
    others = [system.open() for _ in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda other: other.change_commands(MODEL, _once_more), others * 3))
    assert system.platform.commands(MODEL) == RolloutCommands(promote=24)


def _once_more(commands: RolloutCommands) -> RolloutCommands:
    return RolloutCommands(promote=(commands.promote or 0) + 1)


def test_concurrent_calls_create_a_run_once(system: System) -> None:
    run = TrainingRun(
        "once", MODEL, 'it\'s "drift"; 100% #sure\n$HOME', parameters={"a": "%(b)s 'c'"}
    )
    others = [system.open() for _ in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda other: other.create_run(run), others))
    assert sorted(created) == [False] * 7 + [True]
    assert system.platform.runs(MODEL)["once"] in ("running", "succeeded")
    assert not system.platform.create_run(run)


def test_weights_and_state_of_a_route_are_read_as_written(system: System) -> None:
    system.platform.serve(MODEL, 1, "1" * 64)
    system.serve(1, 2)
    system.platform.serve(MODEL, 1, "2" * 64)
    assert system.platform.serving(MODEL) == {
        1: ServingStatus(1, "ready", digest="1" * 64),  # what is served keeps its content
        2: ServingStatus(2, "ready"),
    }
    for route in (
        Route({1: 100}, {"phase": "steady", "reason": "é \"'$\n"}),
        Route({1: 75, 2: 25}, {"phase": "canary"}),
        Route({1: 75, 2: 25}, {"phase": "canary", "since": "1.5"}),
        Route({2: 100}),
    ):
        system.route(route)
        assert system.platform.route(MODEL) == system.open().route(MODEL) == route


def test_reading_changes_nothing(system: System) -> None:
    system.serve(1)
    system.route(Route({1: 100}, {"phase": "steady"}))
    system.platform.create_run(TrainingRun("read", MODEL, "test"))
    system.settle()
    before, reads = system.snapshot(), []
    for _ in range(2):
        platform = system.open()
        reads.append(
            (
                platform.serving(MODEL)[1],
                platform.route(MODEL),
                platform.confirmed(MODEL),
                platform.commands(MODEL),
                platform.runs(MODEL).keys(),
                {process.name for process in platform.processes()},
            )
        )
    assert reads[0] == reads[1]
    assert system.snapshot() == before


def test_an_invalid_route_changes_nothing(system: System) -> None:
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


def test_only_a_version_without_traffic_is_retired(system: System) -> None:
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


def test_a_configured_model_is_not_removed(system: System) -> None:
    assert system.platform.removed_models() == []
    with pytest.raises(PlatformError, match=f"{MODEL}.*so it is not removed"):
        system.platform.remove(MODEL)


def test_a_lease_has_one_holder(system: System) -> None:
    other = system.open()
    assert system.platform.acquire("shared")
    assert not other.acquire("shared")
    assert other.acquire("of-its-own")
    assert system.platform.acquire("shared")


def test_a_released_lease_is_free_at_once(system: System) -> None:
    other = system.open()
    assert system.platform.acquire("shared")
    other.release("shared")  # which it does not hold
    assert not other.acquire("shared")
    system.platform.release("shared")
    assert other.acquire("shared")
    assert not system.platform.acquire("shared")
    system.platform.release("nobody's")
