"""A second cluster beside the first one, from its start to its end."""

import os
import re
import subprocess
from pathlib import Path

from watchkeeper.cluster.cgroups import roots
from watchkeeper.cluster.commands import run
from watchkeeper.cluster.kubernetes import Kubernetes
from watchkeeper.cluster.layout import Layout

PYTHON = Path(__file__).parents[2] / ".venv" / "bin" / "python"


def test_a_second_cluster_comes_up_beside_the_first_and_leaves_nothing(
    kubectl: Kubernetes, tmp_path: Path
) -> None:
    folder = tmp_path / "second"
    before = traces(folder)
    command(folder, "up")
    try:
        second = Kubernetes(Layout(folder), folder / "bin" / "kubectl")
        assert identity(second) != identity(kubectl)
        assert traces(folder) != before
    finally:
        command(folder, "down")
    assert traces(folder) == before
    assert not folder.exists()
    assert kubectl.kubectl("get", "--raw", "/readyz") == "ok"


def identity(cluster: Kubernetes) -> str:
    return cluster.kubectl("get", "namespace/kube-system", "--output=jsonpath={.metadata.uid}")


def command(folder: Path, word: str) -> None:
    """Run a command as a person does, who looks at no other cluster."""
    environment = {**os.environ, "WATCHKEEPER_CLUSTER": str(folder), "KUBECONFIG": ""}
    words = [PYTHON, "-m", "watchkeeper.cluster", word]
    subprocess.run(words, env=environment, check=True, timeout=600)


def traces(folder: Path) -> dict[str, set[str]]:
    """What a cluster in ``folder`` could leave on this machine."""
    mounts = Path("/proc/self/mounts").read_text()
    links = run(["ip", "-oneline", "link"]).splitlines()
    rules = re.sub(r"\[\d+:\d+\]|^#.*$", "", run(["iptables-save"]), flags=re.MULTILINE)
    return {
        "processes": {pid for pid in os.listdir("/proc") if pid.isdigit() and names(pid, folder)},
        "mounts": {line for line in mounts.splitlines() if str(folder) in line},
        "interfaces": {line.split(": ")[1].partition("@")[0] for line in links},
        "rules": set(rules.splitlines()),
        "cgroups": {str(found) for root in roots() for found in root.glob("watchkeeper-*")},
    }


def names(pid: str, folder: Path) -> bool:
    """Tell whether a process was given anything in ``folder``."""
    try:
        return str(folder) in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:  # it has just ended
        return False
