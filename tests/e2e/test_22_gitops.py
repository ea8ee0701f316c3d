"""A GitOps tool applies the manifests all the time, and disturbs no rollout."""

from collections.abc import Iterator

import pytest
from declared_models import FIRST as MODEL
from gitops import FIELD_MANAGER, SyncedInstallation, Syncing
from installation import FOLDER, installed
from kube import get, items, wait_until
from load import Load
from rollouts import check_promotion, has_succeeded, newest_candidate

from watchkeeper.core.events import RouteRepaired
from watchkeeper.ledger.events import history

OF_ROLLOUT = {
    "HTTPRoute",
    "InferenceService",
    "BackendTLSPolicy",
    "BackendTrafficPolicy",
    "SecurityPolicy",
}
LEAST_SYNCS = 20


@pytest.fixture(scope="module")
def installation() -> Iterator[SyncedInstallation]:
    with installed(SyncedInstallation(FOLDER / "gitops", models=(MODEL,))) as made:
        yield made


def generations(installation: SyncedInstallation) -> dict[str, int]:
    """Return the generation of each workload, which a change of its spec increases."""
    kinds = "deployments,statefulsets,cronjobs"
    return {
        f"{each['kind']}/{each['metadata']['name']}": each["metadata"]["generation"]
        for namespace in (installation.namespace, installation.training)
        for each in items(kinds, f"--namespace={namespace}")
        if each["metadata"]["labels"].get("app.kubernetes.io/component") != "server"
    }


def test_a_release_that_was_rendered_and_applied_serves(installation: SyncedInstallation) -> None:
    assert installation.first_versions[MODEL].promoted == [1]


def test_what_rollout_manages_is_not_in_the_manifests(installation: SyncedInstallation) -> None:
    kinds = {each["kind"] for each in installation.rendered()}
    assert "Deployment" in kinds
    assert not kinds & OF_ROLLOUT


def test_a_rollout_goes_on_while_the_manifests_are_applied_all_the_time(
    installation: SyncedInstallation,
) -> None:
    before = generations(installation)
    with (
        Syncing(installation) as syncing,
        Load(installation, MODEL, "gitops", rate=40.0) as load,
    ):
        run = installation.watchkeeper("train", MODEL)["run"]
        wait_until("the run has ended", lambda: has_succeeded(installation, run), 300.0)
        check_promotion(installation, MODEL, newest_candidate(installation, MODEL))
        load.check()
        wait_until("it was applied often", lambda: syncing.count >= LEAST_SYNCS, 300.0)
    assert generations(installation) == before, "nothing was restarted"
    assert len(installation.jobs(MODEL)) == 2
    assert history(installation.ledger, MODEL, kind=RouteRepaired) == []
    namespace = f"--namespace={installation.namespace}"
    route = get("httproute", MODEL, namespace, "--show-managed-fields")
    assert FIELD_MANAGER not in {each["manager"] for each in route["metadata"]["managedFields"]}
