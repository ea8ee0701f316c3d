"""Two models at the same time: one rolls out a new version while the other drifts."""

import time
from collections.abc import Iterator

import pytest
from declared_models import FIRST, SECOND
from installation import Installation
from known_state import check_never_drifted
from kube import wait_until
from ledger_comparison import check_exact
from load import Load
from rollouts import (
    canary_percent,
    check_promotion,
    current_scenario,
    has_succeeded,
    newest_candidate,
)

from watchkeeper.core.events import Promoted
from watchkeeper.demo.plants import find
from watchkeeper.ledger.counts import count_reports
from watchkeeper.ledger.events import history

ROLLS_OUT, DRIFTS = FIRST, SECOND
QUIET_WINDOWS = 2


@pytest.fixture(scope="module")
def loads(installation: Installation) -> Iterator[dict[str, Load]]:
    """A steady load on each model."""
    check_never_drifted(installation, DRIFTS)
    scenario = current_scenario(installation, ROLLS_OUT)
    with (
        Load(installation, ROLLS_OUT, "rolls-out", rate=40.0, scenario=scenario) as one,
        Load(installation, DRIFTS, "drifts") as other,
    ):
        yield {ROLLS_OUT: one, DRIFTS: other}


def test_one_model_rolls_out_while_the_other_drifts(
    installation: Installation, loads: dict[str, Load]
) -> None:
    stable = installation.model(DRIFTS)["production"]
    reports = count_quiet_reports(installation, stable)
    wait_until(
        "windows without drift were examined",
        lambda: count_quiet_reports(installation, stable) >= reports + QUIET_WINDOWS,
        120.0,
    )
    assert installation.episodes(DRIFTS) == set()
    episodes = {model: len(installation.episodes(model)) for model in loads}
    jobs = {model: len(installation.jobs(model)) for model in loads}
    run = installation.watchkeeper("train", ROLLS_OUT)["run"]
    wait_until("the run has succeeded", lambda: has_succeeded(installation, run), 300.0)
    new = newest_candidate(installation, ROLLS_OUT)
    wait_until("its first step", lambda: canary_percent(installation, ROLLS_OUT, new) > 0, 240.0)
    drifted = time.time()
    loads[DRIFTS].switch(find(DRIFTS).drift)

    check_promotion(installation, ROLLS_OUT, new)
    wait_until(
        f"a new version of {DRIFTS} has passed the gate",
        lambda: newest_candidate(installation, DRIFTS) > stable,
        300.0,
    )
    check_promotion(installation, DRIFTS, newest_candidate(installation, DRIFTS))
    for load in loads.values():
        load.check()

    assert drifted < last_promotion(installation, ROLLS_OUT), "both at the same time"
    for model, new_episodes in {ROLLS_OUT: 0, DRIFTS: 1}.items():
        assert len(installation.episodes(model)) == episodes[model] + new_episodes
        assert len(installation.jobs(model)) == jobs[model] + 1


def test_no_request_has_failed_and_the_ledger_is_exact(
    installation: Installation, loads: dict[str, Load]
) -> None:
    for load in loads.values():
        load.stop()
    for load in loads.values():
        check_exact(installation, load)


def count_quiet_reports(installation: Installation, version: int) -> int:
    return count_reports(installation.ledger, DRIFTS, version, drifted=False)


def last_promotion(installation: Installation, model: str) -> float:
    """Return the time of a model's last promotion, in seconds since 1970."""
    return history(installation.ledger, model, kind=Promoted)[-1].time
