"""Runs for a version of the code, while parts of the system are still coming."""

import time
from pathlib import Path
from typing import Any

import pytest

from watchkeeper.cli import code
from watchkeeper.cli.installation import Installation, UnknownModelError
from watchkeeper.contracts import patience
from watchkeeper.contracts.names import code_run_name
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.ledger.episodes import attempts
from watchkeeper.platforms import PlatformError, Run
from watchkeeper.registry import RegistryError

MODELS = ("pump-failure", "warranty-risk")


class Late:
    """An installation, a registry and runs, each of which answers only after some tries."""

    def __init__(self, ledger: Ledger, misses: int) -> None:
        self.misses = {"installation": misses, "registry": misses}
        self.opened = 0
        self.registry_code = ""
        self.created: list[str] = []
        parts: Any = self
        self.installation = Installation(parts, ledger, parts, parts, MODELS)

    def open(self) -> Installation:
        self._miss("installation", PlatformError("not installed yet"))
        self.opened += 1
        return self.installation

    def versions(self, _model: str) -> list[Any]:
        self._miss("registry", RegistryError("not up yet", self.registry_code))
        return []

    def aliases(self, _model: str) -> dict[str, int]:
        return {}

    def runs(self, model: str) -> dict[str, str]:
        return {name: "running" for name in self.created if name.startswith(model)}

    def create_run(self, run: Run) -> bool:
        self.created.append(run.name)
        return True

    def _miss(self, what: str, error: Exception) -> None:
        self.misses[what] -= 1
        if self.misses[what] >= 0:
            raise error


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    monkeypatch.setattr(patience, "POLL_SECONDS", 0.01)
    return Ledger(url)


def opened_late(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, misses: int) -> Late:
    late = Late(ledger, misses)
    monkeypatch.setattr(code, "open_installation", late.open)
    return late


def test_a_system_that_comes_late_is_waited_for_and_opened_once(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = opened_late(ledger, monkeypatch, misses=3)
    told = code.train_for_code("2.0", wait=60)
    assert [(each.model, each.started) for each in told] == [(model, True) for model in MODELS]
    assert late.created == [code_run_name(model, "2.0") for model in MODELS]
    assert late.opened == 1
    assert [len(attempts(ledger, model)) for model in MODELS] == [1, 1]
    assert [each.started for each in code.train_for_code("2.0")] == [False, False]
    ledger.close()


def test_what_goes_on_to_be_refused_is_not_waited_for(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code, "REFUSED_SECONDS", 0.05)
    late = opened_late(ledger, monkeypatch, misses=10**6)
    with pytest.raises(PlatformError, match="not installed yet"):
        code.train_for_code("2.0", wait=3600)
    late.misses["installation"] = 0
    started = time.monotonic()
    with pytest.raises(RegistryError, match="not up yet"):
        code.train_for_code("2.0", wait=0.5)
    assert time.monotonic() - started > 0.5, "a registry may come late"
    late.registry_code = "UNAUTHENTICATED"
    with pytest.raises(RegistryError, match="not up yet"):
        code.train_for_code("2.0", wait=3600)
    ledger.close()


def test_what_does_not_come_in_time_is_told(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = opened_late(ledger, monkeypatch, misses=10**6)
    with pytest.raises(PlatformError, match="not installed yet"):
        code.train_for_code("2.0", wait=0.05)
    late.misses["installation"] = 0
    with pytest.raises(RegistryError, match="not up yet"):
        code.train_for_code("2.0", wait=0.05)
    assert late.created == []
    ledger.close()


def test_a_model_that_is_none_of_the_installation_is_not_waited_for(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = opened_late(ledger, monkeypatch, misses=0)
    with pytest.raises(UnknownModelError, match=r"no model 'pumps' here; there is pump-failure, w"):
        code.train_for_code("2.0", "pumps", wait=60)
    assert [each.model for each in code.train_for_code("2.0", MODELS[1])] == [MODELS[1]]
    assert late.created == [code_run_name(MODELS[1], "2.0")]
    ledger.close()
