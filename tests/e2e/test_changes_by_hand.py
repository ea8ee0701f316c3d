"""What people change with kubectl behind the controllers: what Watchkeeper owns comes back.

It takes minutes, so the nightly workflow runs it (`make changes-test`).
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from declared_models import FIRST as MODEL
from installation import RELEASE, ROLLOUT_POLICY, Installation
from kube import CommandError, Json, apply, get, items, kubectl, wait_until
from load import Load
from rollouts import (
    canary_percent,
    check_promotion,
    current_scenario,
    has_succeeded,
    newest_candidate,
    serves_alone,
)
from sample_requests import sample_request

from watchkeeper.core.events import RouteRepaired
from watchkeeper.core.names import serving_name
from watchkeeper.ledger.events import history

WAIT_SECONDS = 240.0
STEP_SECONDS = 8.0


@pytest.fixture(scope="module")
def production(installation: Installation) -> int:
    """The version in production, whose objects are changed."""
    version: int = installation.model(MODEL)["production"]
    return version


def test_a_lease_that_was_deleted_is_taken_again(installation: Installation) -> None:
    lease = ("lease", f"rollout-{MODEL}", namespace(installation))
    holder = get(*lease)["spec"]["holderIdentity"]
    kubectl("delete", *lease)
    wait_until("the lease is taken again", lambda: get(*lease))
    assert get(*lease)["spec"]["holderIdentity"] == holder


CHANGES: dict[str, Callable[[str], tuple[str, ...]]] = {
    "the route is deleted": lambda _: ("delete", "httproute", MODEL),
    "the weights do not add up to 100": lambda _: (
        *("patch", "httproute", MODEL, "--type=json"),
        f"--patch={json.dumps(weights({0: 7}))}",
    ),
    "the route names another Service": lambda _: (
        *("patch", "httproute", MODEL, "--type=json"),
        f"--patch={json.dumps(services('web'))}",
    ),
    "the InferenceService is deleted": lambda name: ("delete", "inferenceservice", name),
    "the servers are scaled to zero": lambda name: (
        *("scale", f"deployment/{name}-predictor", "--replicas=0"),
    ),
    "the number of servers is changed": lambda name: (
        *("patch", "inferenceservice", name, "--type=merge"),
        '--patch={"spec": {"predictor": {"minReplicas": 1, "maxReplicas": 1}}}',
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_production_serves_again_after(
    installation: Installation, production: int, change: str
) -> None:
    name = serving_name(MODEL, production)
    before = observed(installation, name)
    kubectl(*CHANGES[change](name), namespace(installation))
    wait_until(f"something changed: {change}", lambda: observed(installation, name) != before)
    wait_until(
        f"version {production} serves alone again",
        lambda: serves_alone(installation, MODEL, production),
        WAIT_SECONDS,
    )
    wait_until("an answer", lambda: answers(installation))
    pods = [pod for pod in installation.pods(MODEL, production) if is_running(pod)]
    assert len(pods) == installation.values()["models"][MODEL]["replicas"]


def test_a_state_that_is_no_state_is_written_again(
    installation: Installation, production: int
) -> None:
    state = "watchkeeper/rollout=steady, I hope"
    kubectl("annotate", "httproute", MODEL, state, "--overwrite", namespace(installation))
    event = wait_until("the event", lambda: repaired_state(installation), WAIT_SECONDS)
    assert "kubectl-annotate" in event.changed_by
    wait_until("production serves", lambda: serves_alone(installation, MODEL, production))


def test_a_missing_secret_stops_an_upgrade_and_no_server(
    installation: Installation, production: int
) -> None:
    found = get("secret", RELEASE, namespace(installation))
    kubectl("delete", "secret", RELEASE, namespace(installation))
    try:
        with pytest.raises(CommandError, match=f"Secret {RELEASE} is missing"):
            installation.install()
        assert answers(installation)
    finally:
        metadata = {key: found["metadata"][key] for key in ("name", "namespace", "labels")}
        apply({**found, "metadata": metadata})
    installation.install()
    wait_until("production serves", lambda: serves_alone(installation, MODEL, production))


def test_a_deleted_job_makes_no_version_and_the_next_run_does(installation: Installation) -> None:
    before = newest_candidate(installation, MODEL)
    deleted = train(installation)
    job = ("job", deleted, f"--namespace={installation.training}")
    wait_until("the pod of the run", lambda: pods_of(installation, deleted), WAIT_SECONDS)
    kubectl("delete", *job)
    wait_until("the pod is gone", lambda: not pods_of(installation, deleted), WAIT_SECONDS)
    assert newest_candidate(installation, MODEL) == before


@pytest.fixture
def longer_steps(installation: Installation) -> Iterator[None]:
    """Canary steps that are long enough for a change of the weights."""
    models: dict[str, Any] = installation.values()["models"]
    models[MODEL]["policies"]["rollout"] = {**ROLLOUT_POLICY, "step_seconds": STEP_SECONDS}
    installation.install(models=models)
    yield
    installation.install()


@pytest.mark.usefixtures("longer_steps")
def test_a_canary_step_is_judged_by_its_own_weights(installation: Installation) -> None:
    run = train(installation)
    wait_until("the run has succeeded", lambda: has_succeeded(installation, run), WAIT_SECONDS)
    canary = newest_candidate(installation, MODEL)
    scenario = current_scenario(installation, MODEL)
    with Load(installation, MODEL, "weights", rate=40.0, scenario=scenario) as load:
        wait_until(
            f"version {canary} has 10 %",
            lambda: canary_percent(installation, MODEL, canary) == 10,
            WAIT_SECONDS,
        )
        patch = f"--patch={json.dumps(weights({0: 50, 1: 50}))}"
        kubectl("patch", "httproute", MODEL, "--type=json", patch, namespace(installation))
        wait_until(
            "the weights of the step are back",
            lambda: canary_percent(installation, MODEL, canary) == 10,
        )
        # Each step has its share of the requests, also the one whose weights were changed.
        check_promotion(installation, MODEL, canary)
        load.check()


def namespace(installation: Installation) -> str:
    return f"--namespace={installation.namespace}"


def weights(changed: dict[int, int]) -> list[Json]:
    """Return a patch of a route: new weights, by the position of the version in each rule."""
    return [
        {"op": "replace", "path": f"/spec/rules/{rule}/backendRefs/{position}/weight", "value": w}
        for rule in range(4)
        for position, w in changed.items()
    ]


def services(name: str) -> list[Json]:
    """Return a patch of a route: another Service in each rule."""
    path = "/spec/rules/{}/backendRefs/0/name"
    return [{"op": "replace", "path": path.format(rule), "value": name} for rule in range(4)]


def observed(installation: Installation, name: str) -> tuple[object, ...]:
    """Return what differs after every change of the objects that serve a version.

    A generation never goes back, so a change that was restored at once is seen, too.
    """
    found = (
        get(kind, each, namespace(installation))
        for kind, each in (
            ("httproute", MODEL),
            ("inferenceservice", name),
            ("deployment", f"{name}-predictor"),
        )
    )
    metadata = (each.get("metadata", {}) for each in found)
    return tuple((each.get("uid"), each.get("generation")) for each in metadata)


def repaired_state(installation: Installation) -> RouteRepaired | None:
    """Return the newest event that the state of the route was written again."""
    events = history(installation.ledger, MODEL, kind=RouteRepaired)
    details = [event.details for event in events]
    found = [each for each in details if isinstance(each, RouteRepaired) and each.part == "state"]
    return found[-1] if found else None


def answers(installation: Installation) -> bool:
    """Ask the model through the Gateway; return True if it answers."""
    url = f"http://{installation.endpoints().address}/v2/models/{MODEL}/infer"
    try:
        answer = httpx.post(url, json=sample_request(MODEL), headers={"Host": MODEL}, timeout=10.0)
    except httpx.TransportError:
        return False
    return answer.status_code == httpx.codes.OK


def is_running(pod: Json) -> bool:
    return "deletionTimestamp" not in pod["metadata"]


def train(installation: Installation) -> str:
    run: str = installation.watchkeeper("train", MODEL)["run"]
    return run


def pods_of(installation: Installation, run: str) -> list[Json]:
    selector = f"--selector=batch.kubernetes.io/job-name={run}"
    return items("pods", selector, f"--namespace={installation.training}")
