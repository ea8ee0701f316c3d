"""Fixtures on a cluster."""

import secrets
import shutil
from collections.abc import Iterator

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
