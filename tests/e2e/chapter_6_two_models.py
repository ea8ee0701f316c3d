"""Two models at once: one rolls out a new version while the other drifts, and neither minds."""

import time
from collections.abc import Iterator

import pytest
from accounts import check_accounts
from installation import Installation
from kube import until
from load import Load
from told import check_promotion, newest, scenario

from watchkeeper.demo.ledger import count_reports
from watchkeeper.demo.worlds import find

ROLLS, DRIFTS = "ai4i-failure", "warranty-risk"
QUIET_WINDOWS = 2


@pytest.fixture(scope="module")
def loads(installation: Installation) -> Iterator[dict[str, Load]]:
    """A steady load on each."""
    how = scenario(installation, ROLLS)
    with (
        Load(installation, ROLLS, "rolls", rate=30.0, scenario=how) as one,
        Load(installation, DRIFTS, "drifts", rate=40.0) as other,
    ):
        yield {ROLLS: one, DRIFTS: other}


def test_one_rolls_out_while_the_other_drifts(
    installation: Installation, loads: dict[str, Load]
) -> None:
    stable = installation.model(DRIFTS)["production"]
    assert installation.episodes(DRIFTS) == set()
    until(
        "windows were examined and not drifted",
        lambda: quiet(installation, stable) >= QUIET_WINDOWS,
        120.0,
    )
    episodes = installation.episodes(ROLLS)
    jobs = {model: len(installation.jobs(model)) for model in loads}

    drifted = time.time()
    loads[DRIFTS].switch(find(DRIFTS).drift)
    run = installation.watchkeeper("train", ROLLS)["run"]
    until(
        "the run has ended well",
        lambda: installation.model(ROLLS)["runs"].get(run) == "succeeded",
        300.0,
    )
    check_promotion(installation, ROLLS, newest(installation, ROLLS))
    until(
        "the drifted one has a new version past its gate",
        lambda: max(installation.versions(DRIFTS, "gate-passed")) > stable,
        300.0,
    )
    new = max(installation.versions(DRIFTS, "gate-passed"))
    check_promotion(installation, DRIFTS, new)
    for load in loads.values():
        load.check()

    # it was at once: the one took its steps between the other's drift and its new version
    first = promoted(installation, ROLLS)
    assert drifted < first < promoted(installation, DRIFTS)
    # and nothing of one was taken for the other's
    assert installation.episodes(ROLLS) == episodes
    assert len(installation.episodes(DRIFTS)) == 1
    assert {model: len(installation.jobs(model)) - jobs[model] for model in jobs} == {
        ROLLS: 1,
        DRIFTS: 1,
    }


def test_no_request_has_failed_and_the_ledger_is_exact(
    installation: Installation, loads: dict[str, Load]
) -> None:
    for load in loads.values():
        load.stop()
    for load in loads.values():
        check_accounts(installation, load)


def quiet(installation: Installation, version: int) -> int:
    return count_reports(installation.ledger, DRIFTS, version, drifted=False)


def promoted(installation: Installation, model: str) -> float:
    """Return when a model's newest version was promoted."""
    return max(one.time for one in installation.events(model) if one.kind == "promoted")
