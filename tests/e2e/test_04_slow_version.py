"""A version that is accurate but slow is rolled back, and `watchkeeper explain` shows why."""

from collections.abc import Iterator
from typing import Any

import pytest
from declared_models import FIRST as MODEL
from installation import ROLLOUT_POLICY, Installation
from kube import wait_until
from ledger_comparison import check_exact
from load import Load
from rollouts import current_scenario, newest_candidate

from watchkeeper.core.events import RolledBack
from watchkeeper.demo.plants import find


@pytest.fixture(scope="module")
def stable(installation: Installation) -> int:
    """The version in production, which stays there."""
    version: int = installation.model(MODEL)["production"]
    return version


@pytest.fixture(scope="module")
def load(installation: Installation) -> Iterator[Load]:
    """A steady load in the scenario that production has learned."""
    scenario = current_scenario(installation, MODEL)
    with Load(installation, MODEL, "slow", scenario=scenario) as made:
        yield made


def test_a_slow_version_is_rolled_back(installation: Installation, load: Load, stable: int) -> None:
    before = newest_candidate(installation, MODEL)
    rolled_back = installation.versions(MODEL, RolledBack)
    words = [word for text in find(MODEL).slow for word in ("--set", text)]
    run = installation.watchkeeper("train", MODEL, *words)["run"]
    wait_until(
        "it has passed the gate", lambda: newest_candidate(installation, MODEL) > before, 180
    )
    slow = newest_candidate(installation, MODEL)
    wait_until(
        "it is rolled back",
        lambda: installation.versions(MODEL, RolledBack) == [*rolled_back, slow],
        180,
    )
    load.check()
    (step,) = installation.steps(MODEL, slow)
    assert (step.percent, step.verdict) == (ROLLOUT_POLICY["steps"][0], "fail")
    assert "latency" in step.reason
    status = installation.model(MODEL)
    assert status["weights"] == {str(stable): 100}
    assert status["runs"][run] == "succeeded"
    wait_until("its pods are gone", lambda: not installation.pods(MODEL, slow))


def test_no_request_has_failed_and_the_ledger_is_exact(
    installation: Installation, load: Load
) -> None:
    load.stop()
    check_exact(installation, load)


def test_explain_shows_why_the_slow_version_was_rolled_back(
    installation: Installation, load: Load
) -> None:
    slow = installation.versions(MODEL, RolledBack)[-1]
    answer = next(answer for answer in load.answers() if answer.version == slow)
    chain: Any = installation.watchkeeper("explain", answer.prediction)
    assert chain["version"] == slow
    inputs = {name: [value] for name, value in answer.inputs.items()}
    assert chain["prediction"]["inputs"] == inputs
    assert chain["training"]["kind"] == "gate-passed"
    assert chain["episode"] is None
    assert [step["kind"] for step in chain["steps"]][-1] == "rolled-back"
