"""A pod that is deleted by force loses the records that it has not shipped, and no others."""

import time

from declared_models import FIRST as MODEL
from faults import delete_pod
from installation import Installation
from kube import wait_until
from ledger_comparison import compare
from load import Load
from rollouts import current_scenario

from watchkeeper.core.prediction_id import request_of

ANSWERS = 200  # over each protocol, before and after the deletion
UNSHIPPED_SECONDS = 5.0  # a sidecar ships several times in this time
KILL_SECONDS = 5.0  # the kubelet needs less to kill the containers


def test_only_the_last_records_of_its_spool_are_lost(installation: Installation) -> None:
    version = installation.model(MODEL)["production"]
    scenario = current_scenario(installation, MODEL)
    with Load(installation, MODEL, "lost", scenario=scenario) as load:
        wait_until("answers", lambda: load.answered() >= ANSWERS)
        before = {pod["metadata"]["name"] for pod in installation.pods(MODEL, version)}
        deleted = time.time()
        delete_pod(installation.namespace, min(before), "--force", "--grace-period=0")
        wait_until("another pod is ready", lambda: ready(installation, version) - before, 120.0)
        load.check()
        answered = load.answered()
        wait_until("more answers", lambda: load.answered() >= answered + ANSWERS)
        load.check()
    found = compare(installation, load)
    assert (found.wrong, found.repeated, found.unknown) == ([], set(), set())
    lost = [each for each in load.answers() if request_of(each.prediction) in found.missing]
    print(f"{len(lost)} records and {-found.extra_labels} labels are lost")
    for answer in lost:
        assert answer.version == version
        assert deleted - UNSHIPPED_SECONDS < answer.time < deleted + KILL_SECONDS
    assert found.extra_labels <= 0


def ready(installation: Installation, version: int) -> set[str]:
    """Return the pods of a version that are ready."""
    return {
        pod["metadata"]["name"]
        for pod in installation.pods(MODEL, version)
        for condition in pod["status"].get("conditions", [])
        if (condition["type"], condition["status"]) == ("Ready", "True")
    }
