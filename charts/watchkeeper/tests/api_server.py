"""The cluster that judges what the chart renders: by KUBECONFIG, or `make cluster`'s."""

import os
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).parents[3]
KUBECONFIG = os.environ.get("KUBECONFIG") or str(ROOT / ".cluster/kubeconfig")


def kubectl(*words: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Ask the API server."""
    return subprocess.run(
        ["kubectl", f"--kubeconfig={KUBECONFIG}", *words],
        input=given,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def remove(*words: str) -> None:
    """Delete objects, and try again for a minute while the API server does not answer."""
    deadline = time.monotonic() + 60.0
    while (said := kubectl("delete", *words, "--ignore-not-found")).returncode:
        assert time.monotonic() < deadline, said.stderr
        time.sleep(2.0)
