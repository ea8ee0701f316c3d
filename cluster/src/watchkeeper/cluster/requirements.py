"""What the machine must have: root, Debian's packages, cgroups, iptables; all is told at once."""

import logging
import os
import shutil
from pathlib import Path

from watchkeeper.cluster.asking import ask
from watchkeeper.cluster.cgroups import controllers
from watchkeeper.cluster.layout import ClusterError

log = logging.getLogger(__name__)

# Debian's package -> a file it brings: a program on the PATH, or a path
PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "containernetworking-plugins": "/usr/lib/cni/ptp",
    "etcd-server": "etcd",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "iproute2": "ip",
    "util-linux": "unshare",
    "openssl": "openssl",
    "busybox-static": "busybox",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
}
INSTALL_SECONDS = 900.0
CONTROLLERS = ("cpu", "cpuset", "memory", "pids")
FILESYSTEMS = ("overlay", "proc", "tmpfs")
# what kube-proxy writes needs these matches and targets
PROBE = (
    "iptables -w 5 -t nat -A POSTROUTING -m comment --comment x -m conntrack --ctstate NEW"
    " -m statistic --mode random --probability 0.5 -j MASQUERADE && iptables-save -t nat"
    " && ip link add name probe0 type veth peer name probe1"
)


def check_root() -> None:
    """Check that this is root.

    Raises:
        ClusterError: it is not.
    """
    if os.geteuid() != 0:
        raise ClusterError(
            "make cluster needs root, for namespaces, mounts and iptables: run it as root"
        )


def check() -> None:
    """Install Debian's packages that are missing, and check the rest.

    Raises:
        ClusterError: what is missing or cannot work, everything that was found.
    """
    _install()
    found = [*_cgroups(Path("/proc/self/mounts").read_text()), *_kernel()]
    if found:
        raise ClusterError("this machine cannot hold the cluster:\n  " + "\n  ".join(found))


def missing_packages() -> list[str]:
    """Return Debian's packages that the cluster needs and this machine does not have."""
    return [
        package
        for package, brings in PACKAGES.items()
        if not (Path(brings).exists() if brings.startswith("/") else shutil.which(brings))
    ]


def _install() -> None:
    missing = missing_packages()
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise ClusterError(f"these Debian packages are needed, and apt-get is not here: {missing}")
    log.info("installing from Debian: %s", " ".join(missing))
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *missing]
    try:
        ask(install, seconds=INSTALL_SECONDS, environment=quiet)
    except ClusterError:  # the lists of packages may be old or not there
        ask(["apt-get", "update", "--quiet"], seconds=INSTALL_SECONDS)
        ask(install, seconds=INSTALL_SECONDS, environment=quiet)
    if still := missing_packages():
        raise ClusterError(f"installed, and yet not to be found on the PATH: {still}")


def _cgroups(mounts: str) -> list[str]:
    complaints = []
    available = controllers(mounts)
    missing = [name for name in CONTROLLERS if name not in available]
    if missing:
        complaints.append(
            f"cgroup controllers are missing: {', '.join(missing)}; they have to be mounted below"
            " /sys/fs/cgroup and enabled in the kernel"
        )
    fixed = [folder for folder in set(available.values()) if not os.access(folder, os.W_OK)]
    if fixed:
        complaints.append(f"cgroups cannot be made, read-only: {', '.join(map(str, fixed))}")
    return complaints


def _kernel() -> list[str]:
    known = Path("/proc/filesystems").read_text().split()
    complaints = [
        f"the kernel has no {name} file system"
        for name in FILESYSTEMS
        if name not in known and not _modprobe(name)
    ]
    try:
        ask(["unshare", "--net", "sh", "-c", PROBE], seconds=30)
    except ClusterError as error:
        complaints.append(
            f"iptables, conntrack or veth do not work in a network namespace: {error}"
        )
    return complaints


def _modprobe(name: str) -> bool:
    if shutil.which("modprobe") is None:
        return False
    try:
        ask(["modprobe", name])
    except ClusterError:
        return False
    return True
