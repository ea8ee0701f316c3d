"""The cluster whose API server checks the rendered chart: KUBECONFIG, or that of `make cluster`."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

Json = dict[str, Any]

ROOT = Path(__file__).parents[3]
KUBECONFIG = os.environ.get("KUBECONFIG") or str(ROOT / ".cluster/kubeconfig")


def kubectl(*words: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run kubectl, with ``given`` as standard input."""
    return subprocess.run(
        ["kubectl", f"--kubeconfig={KUBECONFIG}", *words],
        input=given,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def remove(*words: str) -> None:
    """Delete objects; retry for a minute while the API server does not answer."""
    deadline = time.monotonic() + 60.0
    while (done := kubectl("delete", *words, "--ignore-not-found")).returncode:
        assert time.monotonic() < deadline, done.stderr
        time.sleep(2.0)


def check_accepted(objects: list[Json]) -> None:
    """Check that a server-side dry run accepts the objects without a warning."""
    # A pod needs its account, and a dry run creates none.
    users = {each["spec"].get("serviceAccountName") for each in objects if each["kind"] == "Pod"}
    for each in objects:
        if each["kind"] == "ServiceAccount" and each["metadata"]["name"] in users:
            assert _apply([each]).returncode == 0
    done = _apply(objects, "--dry-run=server")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    assert done.stdout.count("serverside-applied (server dry run)") == len(objects), done.stdout


def _apply(objects: list[Json], *options: str) -> subprocess.CompletedProcess[str]:
    words = ("apply", "--server-side", "--validate=strict", "--filename=-", *options)
    many = {"apiVersion": "v1", "kind": "List", "items": objects}
    return kubectl(*words, given=json.dumps(many))


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
