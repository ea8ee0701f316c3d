"""Two models at once: one rolls out a new version while the other drifts, and neither minds."""

import time
from collections.abc import Iterator

import pytest
from accounts import check_accounts
from installation import Installation
from kube import until
from load import Load
from told import check_promotion, ended_well, newest, scenario, share

from watchkeeper.demo.ledger import count_reports
from watchkeeper.demo.worlds import find

ROLLS, DRIFTS = "ai4i-failure", "warranty-risk"
QUIET_WINDOWS = 2


@pytest.fixture(scope="module")
def loads(installation: Installation) -> Iterator[dict[str, Load]]:
    """A steady load on each."""
    how = scenario(installation, ROLLS)
    with (
        Load(installation, ROLLS, "rolls", rate=40.0, scenario=how) as one,
        Load(installation, DRIFTS, "drifts") as other,
    ):
        yield {ROLLS: one, DRIFTS: other}


def test_one_rolls_out_while_the_other_drifts(
    installation: Installation, loads: dict[str, Load]
) -> None:
    # to work as it did before is no drift to a version that has learnt both
    assert installation.episodes(DRIFTS) == set()
    stable = installation.model(DRIFTS)["production"]
    until(
        "windows were examined and not drifted",
        lambda: quiet(installation, stable) >= QUIET_WINDOWS,
        120.0,
    )
    episodes = {model: len(installation.episodes(model)) for model in loads}
    jobs = {model: len(installation.jobs(model)) for model in loads}
    run = installation.watchkeeper("train", ROLLS)["run"]
    until("the run has ended well", lambda: ended_well(installation, run), 300.0)
    new = newest(installation, ROLLS)
    until("its first step", lambda: share(installation, ROLLS, new) > 0, 240.0)
    drifted = time.time()
    loads[DRIFTS].switch(find(DRIFTS).drift)

    check_promotion(installation, ROLLS, new)
    until(
        "the drifted one has a new version past its gate",
        lambda: newest(installation, DRIFTS) > stable,
        300.0,
    )
    check_promotion(installation, DRIFTS, newest(installation, DRIFTS))
    for load in loads.values():
        load.check()

    # it was at once, and nothing of one was taken for the other's
    assert drifted < promoted(installation, ROLLS)
    for model, more in {ROLLS: 0, DRIFTS: 1}.items():
        assert len(installation.episodes(model)) == episodes[model] + more
        assert len(installation.jobs(model)) == jobs[model] + 1


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
