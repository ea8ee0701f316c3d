"""helm install: the first training Job, version 1 past its gate and serving."""

import pytest
from installation import RELEASE, Installation
from kube import helm, until

MODELS = ("ai4i-failure", "warranty-risk")


@pytest.mark.parametrize("model", MODELS)
def test_the_first_version_is_trained_by_one_job_gated_and_served(
    installation: Installation, model: str
) -> None:
    until(f"{model}: promoted", lambda: installation.versions(model, "promoted") == [1], 400.0)
    assert installation.versions(model, "gate-passed") == [1]
    assert installation.model(model)["weights"] == {"1": 100}
    assert len(installation.jobs(model)) == 1


def test_pods_are_not_restarted_and_pass_the_restricted_standard(
    installation: Installation,
) -> None:
    assert installation.restarts("ai4i-failure", 1) == [0, 0]
    assert installation.restarts("warranty-risk", 1) == [0]


def test_helm_test_is_green(installation: Installation) -> None:
    place = f"--namespace={installation.namespace}"
    said = helm("test", RELEASE, place, "--logs", "--timeout=3m")
    for model in MODELS:
        for protocol in ("HTTP", "gRPC"):
            assert f"{model} version 1 answers over {protocol}" in said
