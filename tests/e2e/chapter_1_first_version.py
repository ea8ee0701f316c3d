"""helm install: the first training Job, version 1 past its gate and serving."""

import urllib.request

import pytest
from installation import Installation
from kube import until

from watchkeeper.demo.ledger import events

MODELS = ("ai4i-failure", "warranty-risk")


@pytest.mark.parametrize("model", MODELS)
def test_the_first_version_is_trained_by_one_job_gated_and_served(
    installation: Installation, model: str
) -> None:
    until(
        f"{model} version 1 serves",
        lambda: installation.model(model)["weights"] == {"1": 100},
        400.0,
    )
    kinds = [event.kind for event in events(installation.ledger, model)]
    assert "gate-passed" in kinds
    assert kinds.count("promoted") == 1
    assert len(installation.jobs(model)) == 1


def test_pods_are_not_restarted_and_pass_the_restricted_standard(
    installation: Installation,
) -> None:
    pods = installation.pods("ai4i-failure", 1)
    assert len(pods) == 2
    for pod in pods:
        statuses = [*pod["status"]["initContainerStatuses"], *pod["status"]["containerStatuses"]]
        assert {status["restartCount"] for status in statuses} == {0}


def test_the_gateway_answers_outside(installation: Installation) -> None:
    request = urllib.request.Request(  # noqa: S310
        f"{installation.endpoints().v2}/v2/models/ai4i-failure/ready",
        headers={"Host": "ai4i-failure"},
    )

    def ready() -> bool:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return bool(answer.status == 200)

    until("the gateway answers", ready)
