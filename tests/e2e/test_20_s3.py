"""Versions and training tables are in S3: MLflow has two pods, and DVC restores a table.

The installation is one of its own, because the files of versions do not move to another store.
"""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from declared_models import FIRST as MODEL
from installation import FOLDER, Installation, installed
from kube import OWN_CLUSTER, ROOT, Json, apply, get, items, kubectl, secret, wait_until
from rollouts import has_succeeded, job_result
from s3 import BUCKET, KEY_ID, PORT, S3
from single_requests import is_answered

from watchkeeper.core.events import GatePassed, GateRejected

DVC = "dvc[s3]==3.67.1"
FILE = "/tmp/rows.parquet"  # noqa: S108 - in the pod of the command line


class InS3(Installation):
    """An installation of one model whose files are in S3.

    Attributes:
        s3: the service, which the first install creates.
    """

    s3: S3

    def values(self) -> Json:
        values = super().values()
        egress = {name: [{"ports": [{"port": PORT}]}] for name in ("artifacts", "snapshots")}
        artifacts = {
            "destination": f"s3://{BUCKET}/mlflow",
            "secretName": "mlflow-s3",
            "s3Endpoint": self.s3.inside,
        }
        return {
            **values,
            "snapshots": self.s3.values(),
            "mlflow": {"replicas": 2, "artifacts": artifacts},
            "networkPolicies": {**values["networkPolicies"], **egress},
        }

    def install(self, **values: Any) -> None:
        if not hasattr(self, "s3"):
            self.s3 = S3(self)
            login = {
                "AWS_ACCESS_KEY_ID": KEY_ID,
                "AWS_SECRET_ACCESS_KEY": self.s3.key,
                "AWS_DEFAULT_REGION": "us-east-1",
            }
            apply(secret(self.namespace, "mlflow-s3", login))
        super().install(**values)


@pytest.fixture(scope="module")
def installation() -> Iterator[InS3]:
    if not OWN_CLUSTER:
        pytest.skip("the image of the S3 service is in the cluster of `make cluster` only")
    with installed(InS3(FOLDER / "s3", models=(MODEL,))) as made:
        yield made


@pytest.fixture(scope="module")
def pulled(installation: InS3) -> Json:
    """What the command prints that restores the table of a new version.

    While its run is in progress, one of the two pods of MLflow ends.
    """
    run = installation.watchkeeper("train", MODEL)["run"]
    kubectl(
        "delete", f"pod/{mlflow_pods(installation)[0]}", f"--namespace={installation.namespace}"
    )
    wait_until("the run has succeeded", lambda: has_succeeded(installation, run), 300.0)
    decided = [
        *installation.versions(MODEL, GatePassed),
        *installation.versions(MODEL, GateRejected),
    ]
    version = max(decided)
    found = installation.watchkeeper("data", "pull", MODEL, str(version), "--to", FILE)
    return {**found, "version": version}


def mlflow_pods(installation: Installation) -> list[str]:
    """Return the names of the pods of MLflow that are ready."""
    selector = "--selector=app.kubernetes.io/component=mlflow"
    return sorted(
        pod["metadata"]["name"]
        for pod in items("pods", selector, f"--namespace={installation.namespace}")
        for condition in pod["status"].get("conditions", [])
        if (condition["type"], condition["status"]) == ("Ready", "True")
    )


def artifact(installation: Installation, version: int, name: str) -> str:
    """Return a file of the MLflow run of a version, as the pod of the command line reads it."""
    script = (
        "from watchkeeper.registry import Registry; client = Registry().client; "
        f"run = client.get_model_version('{MODEL}', '{version}').run_id; "
        f"print('BEGIN' + open(client.download_artifacts(run, '{name}')).read())"
    )
    return installation.in_cli("python", "-c", script).partition("BEGIN")[2]


def test_the_first_version_is_served_from_s3(installation: InS3) -> None:
    assert installation.first_versions[MODEL].promoted == [1]
    assert len(mlflow_pods(installation)) == 2
    for protocol in ("http", "grpc"):
        assert is_answered(installation, protocol, {}, MODEL)


def test_new_servers_fetch_their_version_whichever_pod_of_mlflow_has_just_ended(
    installation: InS3,
) -> None:
    namespace = f"--namespace={installation.namespace}"
    for remaining in (0, 1):
        wait_until("both are ready", lambda: len(mlflow_pods(installation)) == 2, 300.0)
        kubectl("delete", f"pod/{mlflow_pods(installation)[1 - remaining]}", namespace)
        old = {pod["metadata"]["name"] for pod in installation.pods(MODEL, 1)}
        kubectl("delete", "pod", *old, namespace, "--wait=false")
        wait_until(
            "the new pods serve",
            lambda old=old: serving(installation, 1) and not old & serving(installation, 1),
            300.0,
        )


def serving(installation: Installation, version: int) -> set[str]:
    """Return the names of the pods of a version if all are ready, otherwise nothing."""
    pods = installation.pods(MODEL, version)
    ready = [
        condition["status"] == "True"
        for pod in pods
        for condition in pod["status"].get("conditions", [])
        if condition["type"] == "Ready"
    ]
    return {pod["metadata"]["name"] for pod in pods} if all(ready) else set()


def test_a_run_makes_the_page_of_its_version(installation: InS3, pulled: Json) -> None:
    page = artifact(installation, pulled["version"], "report.html")
    assert page.startswith("<!DOCTYPE html>")
    assert page.count("<svg") >= 5


def test_the_command_line_restores_the_table_in_its_pod(installation: InS3, pulled: Json) -> None:
    digest = f"import hashlib; print(hashlib.sha256(open('{FILE}', 'rb').read()).hexdigest())"
    assert installation.in_cli("python", "-c", digest).strip() == pulled["sha256"]
    assert pulled["rows"] >= 10_000


def test_dvc_restores_the_same_table_from_outside(
    installation: InS3, pulled: Json, tmp_path: Path
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
        "endpointurl": installation.s3.outside,
        "region": "us-east-1",
        "access_key_id": KEY_ID,
        "secret_access_key": installation.s3.key,
    }
    for name, value in options.items():
        dvc("remote", "modify", "store", name, value)
    dvc("pull")
    content = (tmp_path / "training-rows.parquet").read_bytes()
    assert hashlib.sha256(content).hexdigest() == pulled["sha256"]


def test_a_run_with_a_wrong_key_registers_nothing_and_is_not_repeated(installation: InS3) -> None:
    decided = len(installation.events(MODEL))
    installation.s3.give_keys(installation.training, "wrong")
    try:
        run = installation.watchkeeper("train", MODEL)["run"]
        place = f"--namespace={installation.training}"
        wait_until("the run has ended", lambda: job_result(get("job", run, place)), 300.0)
        assert job_result(get("job", run, place)) == "Failed"
        assert get("job", run, place)["status"]["failed"] == 1
    finally:
        installation.s3.give_keys(installation.training, installation.s3.key)
    new = installation.events(MODEL)[decided:]
    assert not any(isinstance(each.details, GatePassed | GateRejected) for each in new)
