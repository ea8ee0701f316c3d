"""`helm install` trains, judges and serves the first version of each model."""

import pytest
from declared_models import FIRST, MODELS, SECOND
from installation import RELEASE, FirstVersion, Installation
from kube import helm


def first_version(installation: Installation, model: str) -> FirstVersion:
    """Return what the installation did for its first version."""
    if model not in installation.first_versions:
        pytest.skip("this run has adopted an installation that existed")
    return installation.first_versions[model]


@pytest.mark.parametrize("model", MODELS)
def test_one_job_trains_the_first_version_which_passes_the_gate_and_serves(
    installation: Installation, model: str
) -> None:
    first = first_version(installation, model)
    assert first.gate_passed == first.promoted == [1]
    assert first.weights == {"1": 100}
    assert first.jobs == 1


def test_no_container_is_restarted(installation: Installation) -> None:
    assert first_version(installation, FIRST).restarts == [0, 0]
    assert first_version(installation, SECOND).restarts == [0]


def test_helm_test_asks_through_the_gateway(installation: Installation) -> None:
    namespace = f"--namespace={installation.namespace}"
    output = helm("test", RELEASE, namespace, "--logs", "--timeout=3m")
    for model in MODELS:
        version = installation.model(model)["production"]
        for protocol in ("HTTP", "gRPC"):
            answers = f"{model} version {version} answers over {protocol}"
            assert f"{answers} through the gateway" in output
