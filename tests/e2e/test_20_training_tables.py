"""Training stores the rows of a version in S3; `watchkeeper data pull` and DVC restore them."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from declared_models import FIRST as MODEL
from installation import RELEASE, Installation
from kube import OWN_CLUSTER, ROOT, Json, get, kubectl, wait_until
from rollouts import has_succeeded, job_result
from s3 import BUCKET, KEY_ID, PORT, S3

from watchkeeper.core.events import GatePassed, GateRejected

DVC = "dvc[s3]==3.67.1"
FILE = "/tmp/rows.parquet"  # noqa: S108 - in the pod of the command line


@pytest.fixture(scope="module")
def s3(installation: Installation) -> Iterator[S3]:
    if not OWN_CLUSTER:
        pytest.skip("the image of the S3 service is in the cluster of `make cluster` only")
    found = S3(installation)
    egress = {"networkPolicies": installation.values()["networkPolicies"]}
    egress["networkPolicies"]["snapshots"] = [{"ports": [{"port": PORT}]}]
    installation.install(snapshots=found.values(), **egress)
    yield found
    installation.install()


@pytest.fixture(scope="module")
def pulled(installation: Installation, s3: S3) -> Json:  # noqa: ARG001 - the runs store there
    """What the command prints that restores the table of a new version."""
    run = installation.watchkeeper("train", MODEL)["run"]
    wait_until("the run has succeeded", lambda: has_succeeded(installation, run), 300.0)
    decided = [
        *installation.versions(MODEL, GatePassed),
        *installation.versions(MODEL, GateRejected),
    ]
    version = max(decided)
    found = installation.watchkeeper("data", "pull", MODEL, str(version), "--to", FILE)
    return {**found, "version": version}


def artifact(installation: Installation, version: int, name: str) -> str:
    """Return a file of the MLflow run of a version, as the pod of the command line reads it."""
    script = (
        "from watchkeeper.registry import Registry; client = Registry().client; "
        f"run = client.get_model_version('{MODEL}', '{version}').run_id; "
        f"print('BEGIN' + open(client.download_artifacts(run, '{name}')).read())"
    )
    pod = ("exec", f"deploy/{RELEASE}-cli", f"--namespace={installation.namespace}", "--")
    return kubectl(*pod, "python", "-c", script, seconds=120.0).partition("BEGIN")[2]


def test_a_run_makes_the_page_of_its_version(installation: Installation, pulled: Json) -> None:
    page = artifact(installation, pulled["version"], "report.html")
    assert page.startswith("<!DOCTYPE html>")
    assert page.count("<svg") >= 5


def test_the_command_line_restores_the_table_in_its_pod(
    installation: Installation, pulled: Json
) -> None:
    digest = f"import hashlib; print(hashlib.sha256(open('{FILE}', 'rb').read()).hexdigest())"
    pod = ("exec", f"deploy/{RELEASE}-cli", f"--namespace={installation.namespace}", "--")
    assert kubectl(*pod, "python", "-c", digest).strip() == pulled["sha256"]
    assert pulled["rows"] >= 10_000


def test_dvc_restores_the_same_table_from_outside(
    installation: Installation, s3: S3, pulled: Json, tmp_path: Path
) -> None:
    def dvc(*words: str) -> None:
        command = [str(ROOT / ".uv/bin/uv"), "tool", "run", "--from", DVC, "dvc", *words]
        environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
        subprocess.run(command, cwd=tmp_path, env=environment, timeout=900, check=True)

    text = artifact(installation, pulled["version"], "training-rows.parquet.dvc")
    (tmp_path / "training-rows.parquet.dvc").write_text(text)
    dvc("init", "--no-scm")
    dvc("remote", "add", "--default", "store", f"s3://{BUCKET}/plant")
    options = {
        "endpointurl": s3.outside,
        "region": "us-east-1",
        "access_key_id": KEY_ID,
        "secret_access_key": s3.key,
    }
    for name, value in options.items():
        dvc("remote", "modify", "store", name, value)
    dvc("pull")
    content = (tmp_path / "training-rows.parquet").read_bytes()
    assert hashlib.sha256(content).hexdigest() == pulled["sha256"]


def test_a_run_with_a_wrong_key_registers_nothing_and_is_not_repeated(
    installation: Installation, s3: S3
) -> None:
    decided = len(installation.events(MODEL))
    s3.give_keys(installation.training, "wrong")
    try:
        run = installation.watchkeeper("train", MODEL)["run"]
        place = f"--namespace={installation.training}"
        wait_until("the run has ended", lambda: job_result(get("job", run, place)), 300.0)
        assert job_result(get("job", run, place)) == "Failed"
        assert get("job", run, place)["status"]["failed"] == 1
    finally:
        s3.give_keys(installation.training, s3.key)
    new = installation.events(MODEL)[decided:]
    assert not any(isinstance(each.details, GatePassed | GateRejected) for each in new)
