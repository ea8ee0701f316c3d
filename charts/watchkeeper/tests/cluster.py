"""The cluster whose API server checks the rendered chart: KUBECONFIG, or that of `make cluster`."""

import os
import subprocess
import time
from pathlib import Path

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
