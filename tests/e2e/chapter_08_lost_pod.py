"""A pod that is deleted by force takes what it had not shipped with it, and nothing else."""

import time

from accounts import add_up
from faults import delete_pod
from installation import Installation
from kube import until
from load import Load
from told import scenario

from watchkeeper.contracts.prediction_id import request_of

MODEL = "ai4i-failure"
ANSWERS = 200  # over each protocol, before and after
UNSHIPPED_SECONDS = 5.0  # a sidecar that is well ships several times in it
DYING_SECONDS = 5.0  # that the kubelet takes to hear of it and to kill


def test_only_the_tail_of_its_spool_is_missing(installation: Installation) -> None:
    version = installation.model(MODEL)["production"]
    how = scenario(installation, MODEL)
    with Load(installation, MODEL, "lost", scenario=how) as load:
        until("answers", lambda: load.answered() >= ANSWERS)
        before = {pod["metadata"]["name"] for pod in installation.pods(MODEL, version)}
        forced = time.time()
        delete_pod(installation.namespace, min(before), "--force", "--grace-period=0")
        until("another pod is ready", lambda: ready(installation, version) - before, 120.0)
        load.check()
        answered = load.answered()
        until("more answers", lambda: load.answered() >= answered + ANSWERS)
        load.check()
    accounts = add_up(installation, load)
    assert (accounts.wrong, accounts.twice, accounts.strange) == ([], set(), set())
    lost = [one for one in load.answers() if request_of(one.prediction) in accounts.missing]
    print(f"{len(lost)} records and {-accounts.labels} labels went with the pod")
    for answer in lost:
        assert answer.version == version
        assert forced - UNSHIPPED_SECONDS < answer.time < forced + DYING_SECONDS
    assert accounts.labels <= 0


def ready(installation: Installation, version: int) -> set[str]:
    """Return the pods of a version that are ready."""
    return {
        pod["metadata"]["name"]
        for pod in installation.pods(MODEL, version)
        for condition in pod["status"].get("conditions", [])
        if (condition["type"], condition["status"]) == ("Ready", "True")
    }
