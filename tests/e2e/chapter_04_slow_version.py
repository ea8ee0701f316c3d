"""A version that is accurate but slow is taken off again, and the chain of causes is told."""

from collections.abc import Iterator
from typing import Any

import pytest
from accounts import check_accounts
from installation import ROLLOUT, Installation
from kube import until
from load import Load

from watchkeeper.demo.sender import Answer
from watchkeeper.demo.worlds import find

MODEL = "ai4i-failure"
SLOW = 3


@pytest.fixture(scope="module")
def load(installation: Installation) -> Iterator[Load]:
    """A steady load; things go as version 2 has learned them."""
    with Load(installation, MODEL, "slow", scenario=find(MODEL).drift) as made:
        yield made


def test_a_slow_version_is_rolled_back(installation: Installation, load: Load) -> None:
    words = [word for text in find(MODEL).slow for word in ("--set", text)]
    run = installation.watchkeeper("train", MODEL, *words)["run"]
    until("it is past its gate", lambda: SLOW in installation.versions(MODEL, "gate-passed"), 180)
    until("it is off again", lambda: installation.versions(MODEL, "rolled-back") == [SLOW], 180)
    load.check()
    (step,) = installation.steps(MODEL, SLOW)
    assert (step.percent, step.verdict) == (ROLLOUT["steps"][0], "fail")
    assert "latency" in step.reason
    status = installation.model(MODEL)
    assert status["weights"] == {"2": 100}
    assert status["runs"][run] == "succeeded"
    until("its pods are gone", lambda: not installation.pods(MODEL, SLOW))


def test_no_request_has_failed_and_the_ledger_is_exact(
    installation: Installation, load: Load
) -> None:
    load.stop()
    check_accounts(installation, load)


def test_explain_tells_why_the_slow_version_went(installation: Installation, load: Load) -> None:
    answer, chain = _explained(installation, load, SLOW)
    assert chain["prediction"]["inputs"] == {name: [v] for name, v in answer.inputs.items()}
    assert chain["training"]["kind"] == "gate-passed"
    assert chain["episode"] is None
    assert [step["kind"] for step in chain["steps"]][-1] == "rolled-back"


def test_explain_tells_the_drift_behind_its_predecessor(
    installation: Installation, load: Load
) -> None:
    _, chain = _explained(installation, load, 2)
    (episode,) = installation.episodes(MODEL)
    assert chain["episode"]["id"] == chain["attempt"]["episode"] == episode
    assert chain["training"]["details"]["run"] == chain["attempt"]["run"]
    assert chain["training"]["details"]["data"]["labelled_rows"] > 0
    steps = [step for step in chain["steps"] if step["kind"] == "step"]
    assert [step["details"]["percent"] for step in steps] == ROLLOUT["steps"]


def _explained(installation: Installation, load: Load, version: int) -> tuple[Answer, Any]:
    """Return an answer of a version, and the chain behind it."""
    answer = next(answer for answer in load.answers() if answer.version == version)
    chain = installation.watchkeeper("explain", answer.prediction)
    assert chain["version"] == version
    return answer, chain
