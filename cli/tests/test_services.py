"""``up`` waits for slow services, and not for ever."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from watchkeeper.cli import services
from watchkeeper.cli.services import IDLE_SECONDS, LIMIT_SECONDS, wait_until_ready
from watchkeeper.cli.up import _reconcile
from watchkeeper.platforms import PlatformError
from watchkeeper.platforms.local.home import Ports
from watchkeeper.platforms.local.supervisor import ProgramState

PORTS = Ports(v2=1, mlflow=2, operations=3, rollout=4)
STEP = 30.0  # seconds between two looks at the services


class FakeSystem:
    """A platform with fake time, in which no service is ready before ``ready_at``."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.pid = 7
        self.ready_at: dict[str, float] = {}
        self.each_step: Callable[[], None] = lambda: None
        self.home = SimpleNamespace(log=lambda service: folder / f"{service}.log")
        self.supervisor = SimpleNamespace(states=self._states)
        clock = SimpleNamespace(monotonic=lambda: self.now, sleep=self._sleep)
        monkeypatch.setattr(services, "time", clock)
        monkeypatch.setattr(services, "_lost_ports", lambda *_: [])
        monkeypatch.setattr(services, "_is_ready", self._is_ready)

    def write(self, service: str) -> None:
        with self.home.log(service).open("a") as file:
            file.write("a line\n")

    def wait(self, *names: services.Service) -> float:
        """Wait for services; return the seconds that it took."""
        begin = self.now
        platform: Any = self
        wait_until_ready(names, platform, PORTS, lambda _: None)
        return self.now - begin

    def _states(self) -> dict[str, ProgramState]:
        return {
            name: ProgramState(name, "RUNNING", self.pid, 1, 0) for name in ("mlflow", "gateway")
        }

    def _is_ready(self, service: str, *_: object) -> bool:
        return self.now >= self.ready_at.get(service, float("inf"))

    def _sleep(self, _seconds: float) -> None:
        self.now += STEP
        self.each_step()


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSystem:
    return FakeSystem(tmp_path, monkeypatch)


def test_a_slow_service_has_time_while_its_log_grows(system: FakeSystem) -> None:
    system.ready_at = {"mlflow": system.now + 2.5 * IDLE_SECONDS}
    system.each_step = lambda: system.write("mlflow")
    assert system.wait("mlflow") == 2.5 * IDLE_SECONDS


def test_a_silent_service_is_not_waited_for(system: FakeSystem) -> None:
    system.ready_at = {"mlflow": system.now + 2 * IDLE_SECONDS}
    system.write("mlflow")
    with pytest.raises(PlatformError, match=r"has logged nothing for 180 s: a line \(see .*mlflow"):
        system.wait("mlflow")


def test_the_log_of_another_service_is_no_progress(system: FakeSystem) -> None:
    system.each_step = lambda: system.write("gateway")
    with pytest.raises(PlatformError, match="mlflow is not ready and has logged nothing"):
        system.wait("mlflow", "gateway")


def test_the_log_of_a_service_without_a_process_is_no_progress(system: FakeSystem) -> None:
    system.pid = 0
    system.each_step = lambda: system.write("mlflow")
    with pytest.raises(PlatformError, match="has logged nothing for 180 s"):
        system.wait("mlflow")


def test_a_service_that_logs_for_ever_reaches_the_limit(system: FakeSystem) -> None:
    system.each_step = lambda: system.write("mlflow")
    begin = system.now
    with pytest.raises(PlatformError, match=r"mlflow is not ready after 600 s: a line"):
        system.wait("mlflow")
    assert system.now - begin == LIMIT_SECONDS + STEP


def test_a_model_that_cannot_be_reconciled_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    reconciled: list[str] = []

    def reconcile(model: str) -> None:
        reconciled.append(model)
        if model == "pump":
            raise PlatformError("pump.json: malformed")

    platform: Any = SimpleNamespace(reconcile=reconcile)
    for model in ("pump", "press"):
        _reconcile(platform, model)
    assert reconciled == ["pump", "press"]
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "pump: the rollout controller will try again: pump.json: malformed" in caplog.text
