"""Training for a version of the code while parts of the system are still starting."""

import time
from pathlib import Path
from typing import Any

import pytest

from watchkeeper.cli import code_training
from watchkeeper.cli.system import System, UnknownModelError
from watchkeeper.core import retry
from watchkeeper.core.names import code_run_name
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.ledger.episodes import attempts
from watchkeeper.platforms import PlatformError, TrainingRun
from watchkeeper.registry import RegistryError

MODELS = ("pump-failure", "press-wear")


class LateSystem:
    """A system and a registry that fail for some calls before they answer."""

    def __init__(self, ledger: Ledger, failures: int) -> None:
        self.failures = {"system": failures, "registry": failures}
        self.opened = 0
        self.registry_code = ""
        self.created: list[str] = []
        clients: Any = self
        self.system = System(clients, ledger, clients, clients, MODELS)

    def open(self) -> System:
        self._fail("system", PlatformError("not installed yet"))
        self.opened += 1
        return self.system

    def versions(self, _model: str) -> list[Any]:
        self._fail("registry", RegistryError("not up yet", self.registry_code))
        return []

    def aliases(self, _model: str) -> dict[str, int]:
        return {}

    def runs(self, model: str) -> dict[str, str]:
        return {name: "running" for name in self.created if name.startswith(model)}

    def create_run(self, run: TrainingRun) -> bool:
        self.created.append(run.name)
        return True

    def _fail(self, what: str, error: Exception) -> None:
        self.failures[what] -= 1
        if self.failures[what] >= 0:
            raise error


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    monkeypatch.setattr(retry, "POLL_SECONDS", 0.01)
    return Ledger(url)


def late_system(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, failures: int) -> LateSystem:
    late = LateSystem(ledger, failures)
    monkeypatch.setattr(code_training, "open_system", late.open)
    return late


def test_late_system_is_retried_and_opened_once(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = late_system(ledger, monkeypatch, failures=3)
    results = code_training.train_for_code("2.0", wait=60)
    assert [(each.model, each.started) for each in results] == [(model, True) for model in MODELS]
    assert late.created == [code_run_name(model, "2.0") for model in MODELS]
    assert late.opened == 1
    assert [len(attempts(ledger, model)) for model in MODELS] == [1, 1]
    assert [each.started for each in code_training.train_for_code("2.0")] == [False, False]
    ledger.close()


def test_repeated_refusal_ends_the_retries(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_training, "REFUSED_SECONDS", 0.05)
    late = late_system(ledger, monkeypatch, failures=10**6)
    with pytest.raises(PlatformError, match="not installed yet"):
        code_training.train_for_code("2.0", wait=3600)
    late.failures["system"] = 0
    started = time.monotonic()
    with pytest.raises(RegistryError, match="not up yet"):
        code_training.train_for_code("2.0", wait=0.5)
    assert time.monotonic() - started > 0.5, "a registry can start late"
    late.registry_code = "UNAUTHENTICATED"
    with pytest.raises(RegistryError, match="not up yet"):
        code_training.train_for_code("2.0", wait=3600)
    ledger.close()


def test_system_that_is_not_ready_in_time_is_an_error(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = late_system(ledger, monkeypatch, failures=10**6)
    with pytest.raises(PlatformError, match="not installed yet"):
        code_training.train_for_code("2.0", wait=0.05)
    late.failures["system"] = 0
    with pytest.raises(RegistryError, match="not up yet"):
        code_training.train_for_code("2.0", wait=0.05)
    assert late.created == []
    ledger.close()


def test_unknown_model_is_refused_without_retries(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = late_system(ledger, monkeypatch, failures=0)
    with pytest.raises(
        UnknownModelError, match=r"no model 'pumps'; its models are pump-failure, p"
    ):
        code_training.train_for_code("2.0", "pumps", wait=60)
    assert [each.model for each in code_training.train_for_code("2.0", MODELS[1])] == [MODELS[1]]
    assert late.created == [code_run_name(MODELS[1], "2.0")]
    ledger.close()
