"""Drift opens one episode and starts one training Job, although two sidecars watch."""

from collections.abc import Iterator

import pytest
from declared_models import FIRST as MODEL
from installation import ROLLOUT_POLICY, Installation
from known_state import check_never_drifted
from kube import wait_until
from ledger_comparison import check_exact
from load import Load
from rollouts import newest_candidate

from watchkeeper.core.events import GatePassed, Promoted, Watched
from watchkeeper.demo.plants import find
from watchkeeper.demo.shares import LEVEL, p_value
from watchkeeper.ledger.counts import count_reports

QUIET_WINDOWS = 3


class Before:
    """The state of the model before the drift."""

    def __init__(self, installation: Installation) -> None:
        self.version: int = installation.model(MODEL)["production"]
        self.episodes = installation.episodes(MODEL)
        self.jobs = len(installation.jobs(MODEL))
        self.promoted = installation.versions(MODEL, Promoted)
        self.reports = count_reports(installation.ledger, MODEL, self.version, drifted=False)


@pytest.fixture(scope="module")
def before(installation: Installation) -> Before:
    """The state before the drift."""
    check_never_drifted(installation, MODEL)
    return Before(installation)


@pytest.fixture(scope="module")
def load(installation: Installation, before: Before) -> Iterator[Load]:  # noqa: ARG001
    """A steady load from before the drift until the new version is in production."""
    with Load(installation, MODEL, "drift") as made:
        yield made


def test_nothing_happens_without_drift(
    installation: Installation, load: Load, before: Before
) -> None:
    wait_until(
        "windows without drift were examined",
        lambda: (
            count_reports(installation.ledger, MODEL, before.version, drifted=False)
            >= before.reports + QUIET_WINDOWS
        ),
    )
    load.check()
    assert installation.episodes(MODEL) == set()
    assert len(installation.jobs(MODEL)) == before.jobs


def test_drift_opens_one_episode_and_starts_one_job(
    installation: Installation, load: Load, before: Before
) -> None:
    assert len(installation.pods(MODEL, before.version)) == 2, "each with a sidecar"
    load.switch(find(MODEL).drift)
    wait_until("a training Job", lambda: len(installation.jobs(MODEL)) > before.jobs)
    wait_until(
        "a new version has passed the gate",
        lambda: newest_candidate(installation, MODEL) > before.version,
        180,
    )
    load.check()
    assert len(installation.episodes(MODEL)) == 1
    assert len(installation.jobs(MODEL)) == before.jobs + 1


def test_the_new_version_is_promoted_in_canary_steps(
    installation: Installation, load: Load, before: Before
) -> None:
    new = installation.versions(MODEL, GatePassed)[-1]
    wait_until(
        "the new version is promoted", lambda: new in installation.versions(MODEL, Promoted), 240
    )
    load.check()
    steps = installation.steps(MODEL, new)
    assert [(step.percent, step.verdict) for step in steps] == [
        (percent, "pass") for percent in ROLLOUT_POLICY["steps"]
    ]
    assert all(step.http_canary and step.grpc_canary for step in steps)
    assert p_value(steps) >= LEVEL
    wait_until("its watch is over", lambda: is_watched(installation, new, before.version))
    assert installation.restarts(MODEL, new) == [0, 0]


def test_no_request_has_failed_and_the_ledger_is_exact(
    installation: Installation, load: Load, before: Before
) -> None:
    load.stop()
    new = installation.versions(MODEL, GatePassed)[-1]
    assert {answer.version for answer in load.answers()} == {before.version, new}
    check_exact(installation, load)
    assert installation.versions(MODEL, Promoted) == [*before.promoted, new]
    assert len(installation.episodes(MODEL)) == 1
    assert len(installation.jobs(MODEL)) == before.jobs + 1


def test_explain_shows_the_drift_that_led_to_the_new_version(
    installation: Installation, load: Load
) -> None:
    new = installation.versions(MODEL, GatePassed)[-1]
    answer = next(answer for answer in load.answers() if answer.version == new)
    chain = installation.watchkeeper("explain", answer.prediction)
    assert chain["version"] == new
    (episode,) = installation.episodes(MODEL)
    assert chain["episode"]["id"] == chain["attempt"]["episode"] == episode
    assert chain["training"]["details"]["run"] == chain["attempt"]["run"]
    assert chain["training"]["details"]["data"]["labelled_rows"] > 0
    steps = [step for step in chain["steps"] if step["kind"] == "step"]
    assert [step["details"]["percent"] for step in steps] == ROLLOUT_POLICY["steps"]


def is_watched(installation: Installation, version: int, previous: int) -> bool:
    """Return True if the watch of a version is over; until then the previous one must be served."""

    def over() -> bool:
        return version in installation.versions(MODEL, Watched)

    if over():
        return True
    # The watch may have ended since the first look.
    assert len(installation.pods(MODEL, previous)) == 2 or over()
    return False
