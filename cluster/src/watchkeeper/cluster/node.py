"""What runs inside the namespaces: `python -m watchkeeper.cluster.node STATE_FOLDER`.

It makes the mounts that keep every trace in the state folder, and becomes the supervisor.
"""

import logging
import sys
from pathlib import Path

from watchkeeper.cluster import cgroups
from watchkeeper.cluster.asking import ask
from watchkeeper.cluster.layout import INSIDE, Layout
from watchkeeper.cluster.supervisor import Supervisor

# where programs insist on writing -> the folder of the state folder that takes it
WRITTEN = {
    "/var/lib/kubelet": "kubelet",
    "/var/lib/cni": "cni",
    "/var/log/pods": "pod-logs/pods",
    "/var/log/containers": "pod-logs/containers",
}


def main(folder: str) -> None:
    """Set the namespaces up and work for ever."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    layout = Layout(Path(folder))
    cgroups.enter(layout.cgroup)
    _mount(layout.folder)
    ask(["ip", "link", "set", "lo", "up"])
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    Supervisor(
        INSIDE / layout.programs_file.name,
        INSIDE / layout.hold.name,
        INSIDE / layout.logs.name,
        INSIDE / layout.status_file.name,
    ).run()


def _mount(state: Path) -> None:
    """Hide what belongs to this machine, and show the state folder in its place."""
    ask(["mount", "--make-rshared", "/"])
    ask(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"])
    INSIDE.mkdir()
    ask(["mount", "--bind", state, INSIDE])
    # the machine's own files stay to be seen, what is written there does not reach them
    for top in ("/var/lib", "/var/log"):
        upper, work = Path("/run/over" + top), Path("/run/over-work" + top)
        upper.mkdir(parents=True)
        work.mkdir(parents=True)
        layers = f"lowerdir={top},upperdir={upper},workdir={work}"
        ask(["mount", "-t", "overlay", "-o", layers, "overlay", top])
    for target, source in WRITTEN.items():
        Path(target).mkdir(parents=True, exist_ok=True)
        (INSIDE / source).mkdir(parents=True, exist_ok=True)
        ask(["mount", "--bind", INSIDE / source, target])


if __name__ == "__main__":
    main(sys.argv[1])
