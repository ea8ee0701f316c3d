"""The end-to-end scenarios' precondition of drift."""

from types import SimpleNamespace
from typing import Any

import pytest
from known_state import check_never_drifted


def installation(*episodes: str) -> Any:
    return SimpleNamespace(namespace="e2e", episodes=lambda _model: set(episodes))


def test_a_new_installation_has_never_drifted() -> None:
    check_never_drifted(installation(), "pump-failure")


def test_a_scenario_of_drift_fails_if_the_plant_has_drifted_before() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"needs a new installation: .*pump-failure"):
        check_never_drifted(installation("episode-1"), "pump-failure")
