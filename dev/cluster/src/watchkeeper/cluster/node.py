"""The first process inside the namespaces: ``python -m watchkeeper.cluster.node STATE_FOLDER``.

It mounts the state folder wherever programs write, and then runs the supervisor.
"""

import logging
import sys
from pathlib import Path

from watchkeeper.cluster import cgroups
from watchkeeper.cluster.commands import run
from watchkeeper.cluster.layout import INSIDE, Layout
from watchkeeper.cluster.supervisor import Supervisor

# Fixed paths that programs write to, and the folder of the state folder mounted there.
WRITTEN = {
    "/var/lib/kubelet": "kubelet",
    "/var/lib/cni": "cni",
    "/var/log/pods": "pod-logs/pods",
    "/var/log/containers": "pod-logs/containers",
}


def main(folder: str) -> None:
    """Set up the namespaces and run until killed."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    layout = Layout(Path(folder))
    cgroups.enter(layout.cgroup)
    _mount(layout.folder)
    run(["ip", "link", "set", "lo", "up"])
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    Supervisor(
        INSIDE / layout.programs_file.name,
        INSIDE / layout.hold.name,
        INSIDE / layout.logs.name,
        INSIDE / layout.status_file.name,
    ).run()


def _mount(state: Path) -> None:
    """Mount the state folder over the paths of this machine."""
    run(["mount", "--make-rshared", "/"])
    run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"])
    INSIDE.mkdir()
    run(["mount", "--bind", state, INSIDE])
    # The machine's own files stay readable; writes go to the overlay.
    for top in ("/var/lib", "/var/log"):
        upper, work = Path("/run/over" + top), Path("/run/over-work" + top)
        upper.mkdir(parents=True)
        work.mkdir(parents=True)
        layers = f"lowerdir={top},upperdir={upper},workdir={work}"
        run(["mount", "-t", "overlay", "-o", layers, "overlay", top])
    for target, source in WRITTEN.items():
        Path(target).mkdir(parents=True, exist_ok=True)
        (INSIDE / source).mkdir(parents=True, exist_ok=True)
        run(["mount", "--bind", INSIDE / source, target])


if __name__ == "__main__":
    main(sys.argv[1])
