"""Places on a cluster for the tests."""

import json
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import kubectl, remove


@pytest.fixture(scope="session")
def namespace() -> Iterator[str]:
    """Make a namespace, and one for training beside it, in which nothing is ever made."""
    if shutil.which("kubectl") is None or kubectl("get", "--raw", "/readyz").returncode:
        pytest.skip("no cluster to ask: neither KUBECONFIG nor `make cluster` leads to one")
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
    """Have the CRDs of the Prometheus operator on the cluster, from its Go module."""
    kinds = ("podmonitors", "prometheusrules")
    names = [f"{kind}.monitoring.coreos.com" for kind in kinds]
    if kubectl("get", "crd", *names).returncode == 0:
        yield
        return
    words = ["go", "mod", "download", "-json", "github.com/prometheus-operator/prometheus-operator"]
    words[-1] += "@v0.85.0"
    if shutil.which("go") is None:
        pytest.skip("no CRDs of the Prometheus operator, and no Go to fetch them with")
    told = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True).stdout
    folder = Path(json.loads(told)["Dir"]) / "example/prometheus-operator-crd"
    files = [f"--filename={folder}/monitoring.coreos.com_{kind}.yaml" for kind in kinds]
    try:
        kubectl("apply", "--server-side", *files).check_returncode()
        kubectl("wait", "--for=condition=Established", "crd", *names).check_returncode()
        yield
    finally:
        remove("crd", *names)
