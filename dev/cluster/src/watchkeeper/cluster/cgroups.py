"""The cluster's own cgroup: everything it runs is below, so that nothing of it can be left over.

Both layouts are known: one hierarchy (version 2), or one per controller (version 1).
"""

import time
from pathlib import Path

from watchkeeper.cluster.layout import ClusterError

SYSTEM = "system"  # the cgroup of the node's own programs; pods are beside it
EMPTY_SECONDS = 20.0
VERSION_1 = {"cpu", "cpuacct", "cpuset", "memory", "pids", "freezer", "devices", "blkio"}
VERSION_1 |= {"hugetlb", "net_cls", "net_prio", "perf_event", "rdma", "misc"}
ENABLED = ("cpu", "cpuset", "io", "memory", "pids")


def controllers(mounts: str) -> dict[str, Path]:
    """Return each cgroup controller with the root of its hierarchy, from /proc/self/mounts."""
    found: dict[str, Path] = {}
    for line in mounts.splitlines():
        _, folder, kind, options, *_ = line.split(" ")
        if kind == "cgroup":
            found.update({name: Path(folder) for name in options.split(",") if _is_known(name)})
        elif kind == "cgroup2":
            listed = Path(folder) / "cgroup.controllers"
            if listed.exists():
                found.update({name: Path(folder) for name in listed.read_text().split()})
    return found


def roots() -> set[Path]:
    """Return the roots of all hierarchies that have a controller, or systemd's name."""
    return set(controllers(Path("/proc/self/mounts").read_text()).values())


def make(name: str) -> None:
    """Create the cgroup ``name``, and the one for the node's programs, in every hierarchy."""
    for root in roots():
        for folder in (root / name, root / name / SYSTEM):
            if (root / "cgroup.controllers").exists():
                _enable(folder.parent)
            folder.mkdir(exist_ok=True)
            for setting in ("cpuset.cpus", "cpuset.mems"):  # cgroup version 1 creates them empty
                file = folder / setting
                if not (root / "cgroup.controllers").exists() and file.exists():
                    file.write_text((folder.parent / setting).read_text())


def enter(name: str) -> None:
    """Move this process, and thereby its children, into the cgroup of the node's programs."""
    for root in roots():
        (root / name / SYSTEM / "cgroup.procs").write_text("0")


def remove(name: str) -> None:
    """Remove the cgroup ``name`` and all below it, once the last process has gone.

    Raises:
        ClusterError: there are still processes in it after a while.
    """
    deadline = time.monotonic() + EMPTY_SECONDS
    left = [root / name for root in roots() if (root / name).exists()]
    while left:
        for top in left:
            for folder in sorted([*top.rglob("*/"), top], key=lambda path: -len(path.parts)):
                if folder.is_dir():
                    try:
                        folder.rmdir()
                    except OSError:  # a process is still ending
                        break
        left = [top for top in left if top.exists()]
        if left and time.monotonic() > deadline:
            raise ClusterError(f"processes are still in {', '.join(map(str, left))}")
        time.sleep(0.05)


def _is_known(option: str) -> bool:
    return option in VERSION_1 or option.startswith("name=")


def _enable(folder: Path) -> None:
    here = set((folder / "cgroup.controllers").read_text().split())
    wanted = [f"+{name}" for name in ENABLED if name in here]
    (folder / "cgroup.subtree_control").write_text(" ".join(wanted))
