"""Drift: one episode, one Job, although two sidecars watch, and a new version in judged steps."""

from collections.abc import Iterator

import pytest
from accounts import check_accounts
from installation import ROLLOUT, Installation
from kube import until
from load import Load

from watchkeeper.demo.ledger import count_reports
from watchkeeper.demo.shares import LEVEL, p_value
from watchkeeper.demo.worlds import find

MODEL = "ai4i-failure"
QUIET_WINDOWS = 3


@pytest.fixture(scope="module")
def load(installation: Installation) -> Iterator[Load]:
    """A steady load from before the drift until the new version is in production."""
    with Load(installation, MODEL, "drift") as made:
        yield made


def test_nothing_happens_while_nothing_changes(installation: Installation, load: Load) -> None:
    until(
        "windows were examined and not drifted",
        lambda: count_reports(installation.ledger, MODEL, 1, drifted=False) >= QUIET_WINDOWS,
    )
    load.check()
    assert installation.episodes(MODEL) == set()
    assert len(installation.jobs(MODEL)) == 1


def test_drift_opens_one_episode_and_starts_one_job(installation: Installation, load: Load) -> None:
    assert len(installation.pods(MODEL, 1)) == 2, "servers, and so sidecars"
    load.switch(find(MODEL).drift)
    until("a training Job", lambda: len(installation.jobs(MODEL)) > 1)
    until(
        "version 2 is past its gate", lambda: 2 in installation.versions(MODEL, "gate-passed"), 180
    )
    load.check()
    assert len(installation.episodes(MODEL)) == 1
    assert len(installation.jobs(MODEL)) == 2


def test_the_new_version_takes_over_in_steps(installation: Installation, load: Load) -> None:
    until("version 2 is promoted", lambda: 2 in installation.versions(MODEL, "promoted"), 240)
    load.check()
    made = installation.steps(MODEL, 2)
    assert [(step.percent, step.verdict) for step in made] == [
        (percent, "pass") for percent in ROLLOUT["steps"]
    ]
    assert all(step.http_canary and step.grpc_canary for step in made)
    assert p_value(made) >= LEVEL
    until("its watch is over", lambda: watched(installation, 2, previous=1))
    assert installation.restarts(MODEL, 2) == [0, 0]


def test_no_request_has_failed_and_the_ledger_is_exact(
    installation: Installation, load: Load
) -> None:
    load.stop()
    assert {answer.version for answer in load.answers()} == {1, 2}
    check_accounts(installation, load)
    assert installation.versions(MODEL, "promoted") == [1, 2]
    assert len(installation.episodes(MODEL)) == 1
    assert len(installation.jobs(MODEL)) == 2


def watched(installation: Installation, version: int, previous: int) -> bool:
    """Tell whether a version's watch is over; as long as it is not, the one before stays warm."""

    def over() -> bool:
        return version in installation.versions(MODEL, "watched")

    if over():
        return True
    # it may have ended just now
    assert len(installation.pods(MODEL, previous)) == 2 or over()
    return False
