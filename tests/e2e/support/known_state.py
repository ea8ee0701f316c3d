"""The state in which every scenario starts: one version per model, and nothing in progress."""

import contextlib

import pytest
from declared_models import MODELS
from installation import Installation
from kube import wait_until
from load import Load
from rollouts import current_scenario, job_result, serves_alone

from watchkeeper.ledger.episodes import OPEN_STATES, episodes

SETTLE_SECONDS = 600.0
QUICK_SECONDS = 60.0  # a retired version needs most of it to ship its last records


def settle(installation: Installation) -> None:
    """Wait until every model is in the known state.

    A rollout needs traffic, so models that do not settle by themselves get requests.
    """
    waiting = [model for model in MODELS if not _settles(installation, model, QUICK_SECONDS)]
    with contextlib.ExitStack() as loads:
        for model in waiting:
            scenario = current_scenario(installation, model)
            load = Load(installation, model, f"settle-{model}", rate=40.0, scenario=scenario)
            loads.enter_context(load)
        for model in waiting:
            settled = _settles(installation, model, SETTLE_SECONDS)
            assert settled, f"{model} has not settled: {installation.model(model)}"


def check_never_drifted(installation: Installation, model: str) -> None:
    """Fail if the model's plant has drifted: its versions know the drift, so it cannot recur."""
    if installation.episodes(model):
        pytest.fail(
            f"needs a new installation: the plant of {model} has already drifted in namespace "
            f"{installation.namespace}"
        )


def is_settled(installation: Installation, model: str) -> bool:
    """Return True if one version serves alone, nothing trains, and no episode is open."""
    if any(job_result(job) is None for job in installation.jobs(model)):
        return False
    if any(episode.state in OPEN_STATES for episode in episodes(installation.ledger, model)):
        return False
    status = installation.model(model)
    candidate, production = status["candidate"], status["production"]
    return candidate is None and serves_alone(installation, model, production)


def _settles(installation: Installation, model: str, seconds: float) -> bool:
    try:
        wait_until(f"{model} has settled", lambda: is_settled(installation, model), seconds)
    except AssertionError as error:
        print(error)
        return False
    return True
