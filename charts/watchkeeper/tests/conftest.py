"""Fixtures on a cluster."""

import json
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import kubectl, remove

pytest_plugins = ["api_server"]


@pytest.fixture(scope="session")
def namespace() -> Iterator[str]:
    """A namespace, and one for training. The tests use dry runs; one creates Secrets."""
    if shutil.which("kubectl") is None or kubectl("get", "--raw", "/readyz").returncode:
        pytest.skip("no cluster answers; set KUBECONFIG or run `make cluster`")
    name = f"chart-{secrets.token_hex(3)}"
    both = (name, f"{name}-training")
    try:
        for each in both:
            kubectl("create", "namespace", each).check_returncode()
            for mode in ("enforce", "warn"):
                label = f"pod-security.kubernetes.io/{mode}=restricted"
                kubectl("label", "namespace", each, label).check_returncode()
        yield name
    finally:
        remove("namespace", *both, "--wait=false")


@pytest.fixture(scope="session")
def prometheus_operator() -> Iterator[None]:
    """The CRDs of the Prometheus operator on the cluster, from its Go module."""
    kinds = ("podmonitors", "prometheusrules")
    names = [f"{kind}.monitoring.coreos.com" for kind in kinds]
    if kubectl("get", "crd", *names).returncode == 0:
        yield
        return
    if shutil.which("go") is None:
        pytest.skip(
            "the cluster has no CRDs of the Prometheus operator; Go is needed to fetch them"
        )
    module = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
    done = subprocess.run(
        ["go", "mod", "download", "-json", module],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    folder = Path(json.loads(done.stdout)["Dir"]) / "example/prometheus-operator-crd"
    files = [f"--filename={folder}/monitoring.coreos.com_{kind}.yaml" for kind in kinds]
    try:
        kubectl("apply", "--server-side", *files).check_returncode()
        kubectl("wait", "--for=condition=Established", "crd", *names).check_returncode()
        yield
    finally:
        remove("crd", *names)
