"""Start, find and end the Linux namespaces of a cluster."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from watchkeeper.cluster import cgroups, network
from watchkeeper.cluster.commands import last_lines, own_environment
from watchkeeper.cluster.layout import INSIDE, ClusterError, Layout

log = logging.getLogger(__name__)

MODULE = "watchkeeper.cluster.node"
START_SECONDS = 30.0
END_SECONDS = 30.0
UNSHARE = ("unshare", "--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--mount-proc")


def find(layout: Layout) -> int | None:
    """Return the process id, outside of the namespaces, of the cluster's first process, or None."""
    wanted = [MODULE.encode(), os.fsencode(layout.folder)]
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            words = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            if words[-2:] == wanted and _is_first(process):
                return int(process.name)
        except (FileNotFoundError, ProcessLookupError):  # the process has just ended
            continue
    return None


def _is_first(process: Path) -> bool:
    """Return whether a process is the first of a process namespace below this one."""
    for line in (process / "status").read_text().splitlines():
        if line.startswith("NSpid:"):
            inside = line.split()[1:]
            return len(inside) > 1 and inside[-1] == "1"
    return False


def start(layout: Layout) -> int:
    """Start the namespaces and return the process id of the first process in them."""
    layout.status_file.unlink(missing_ok=True)
    cgroups.make(layout.cgroup)
    log_file = layout.logs / "supervisor.log"
    with log_file.open("ab") as output:
        process = subprocess.Popen(
            [*UNSHARE, sys.executable, "-m", MODULE, str(layout.folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
            env=own_environment(),
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        init = find(layout)
        # The first status is written after the process has entered its cgroup and made its mounts.
        if init is not None and Path(f"/proc/{init}/root{INSIDE}/status.json").exists():
            return init
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise ClusterError(
        f"the cluster's namespaces could not be set up; {log_file} ends with:\n"
        + last_lines(log_file.read_text())
    )


def run_inside(layout: Layout, command: list[str]) -> int:
    """Run a command in the namespaces on this terminal; return its exit code."""
    init = find(layout)
    if init is None:
        raise ClusterError(f"no cluster runs in {layout.folder}")
    enter = ["nsenter", "--target", str(init), "--net", "--mount", "--pid", "--"]
    return subprocess.run([*enter, *command], check=False).returncode


def end(layout: Layout) -> None:
    """End all processes in the namespaces; remove the link and the cgroups."""
    init = find(layout)
    if init is not None:
        os.kill(init, signal.SIGKILL)  # the kernel then ends all others
    deadline = time.monotonic() + END_SECONDS
    while find(layout) is not None:
        if time.monotonic() > deadline:
            raise ClusterError(f"process {init}, the cluster's first, does not end")
        time.sleep(0.05)
    cgroups.remove(layout.cgroup)
    network.detach(layout)
