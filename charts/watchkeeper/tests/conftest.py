"""Fixtures on a cluster."""

import json
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
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
    """The CRDs of the Prometheus operator on the cluster."""
    with definitions(
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "example/prometheus-operator-crd/monitoring.coreos.com",
        ("podmonitors", "prometheusrules"),
    ):
        yield


@pytest.fixture(scope="session")
def cert_manager() -> Iterator[None]:
    """The CRD of cert-manager's certificates on the cluster."""
    module = "github.com/cert-manager/cert-manager@v1.21.2"
    with definitions(module, "deploy/crds/cert-manager.io", ("certificates",)):
        yield


@contextmanager
def definitions(module: str, group: str, kinds: tuple[str, ...]) -> Iterator[None]:
    """Create the CRDs of a Go module, unless the cluster has them.

    Args:
        module: the module with its version.
        group: the folder of the CRDs in the module, with the API group that their files begin with.
        kinds: the kinds in the plural.
    """
    names = [f"{kind}.{Path(group).name}" for kind in kinds]
    if kubectl("get", "crd", *names).returncode == 0:
        yield
        return
    if shutil.which("go") is None:
        pytest.skip(f"the cluster has no CRDs {', '.join(names)}; Go is needed to fetch them")
    done = subprocess.run(
        ["go", "mod", "download", "-json", module],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    folder = Path(json.loads(done.stdout)["Dir"])
    files = [f"--filename={folder / group}_{kind}.yaml" for kind in kinds]
    try:
        kubectl("apply", "--server-side", *files).check_returncode()
        kubectl("wait", "--for=condition=Established", "crd", *names).check_returncode()
        yield
    finally:
        remove("crd", *names)
