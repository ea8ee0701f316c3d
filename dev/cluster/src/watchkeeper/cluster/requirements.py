"""Check the machine: root, Debian packages, cgroups, iptables. One error lists all problems."""

import logging
import os
import shutil
from pathlib import Path

from watchkeeper.cluster.cgroups import controllers
from watchkeeper.cluster.commands import run
from watchkeeper.cluster.layout import ClusterError

log = logging.getLogger(__name__)

# Debian packages, each with a program on the PATH or a path that it contains.
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
# the iptables matches and targets that kube-proxy uses
PROBE = (
    "iptables -w 5 -t nat -A POSTROUTING -m comment --comment x -m conntrack --ctstate NEW"
    " -m statistic --mode random --probability 0.5 -j MASQUERADE && iptables-save -t nat"
    " && ip link add name probe0 type veth peer name probe1"
)


def check_root() -> None:
    """Check that the user is root.

    Raises:
        ClusterError: it is not.
    """
    if os.geteuid() != 0:
        raise ClusterError(
            "make cluster needs root, for namespaces, mounts and iptables: run it as root"
        )


def check() -> None:
    """Install the missing Debian packages and check everything else.

    Raises:
        ClusterError: what is missing or cannot work, everything that was found.
    """
    _install()
    found = [*_cgroups(Path("/proc/self/mounts").read_text()), *_kernel()]
    if found:
        raise ClusterError("this machine cannot run the cluster:\n  " + "\n  ".join(found))


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
        raise ClusterError(f"these Debian packages are missing, and so is apt-get: {missing}")
    log.info("installing from Debian: %s", " ".join(missing))
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *missing]
    try:
        run(install, seconds=INSTALL_SECONDS, environment=quiet)
    except ClusterError:  # the package lists may be old or missing
        run(["apt-get", "update", "--quiet"], seconds=INSTALL_SECONDS)
        run(install, seconds=INSTALL_SECONDS, environment=quiet)
    if still := missing_packages():
        raise ClusterError(f"installed, but not on the PATH: {still}")


def _cgroups(mounts: str) -> list[str]:
    problems = []
    available = controllers(mounts)
    missing = [name for name in CONTROLLERS if name not in available]
    if missing:
        problems.append(
            f"cgroup controllers are missing: {', '.join(missing)}; mount them below /sys/fs/cgroup"
            " and enable them in the kernel"
        )
    fixed = [folder for folder in set(available.values()) if not os.access(folder, os.W_OK)]
    if fixed:
        problems.append(f"cgroups are read-only: {', '.join(map(str, fixed))}")
    return problems


def _kernel() -> list[str]:
    known = Path("/proc/filesystems").read_text().split()
    problems = [
        f"the kernel has no {name} file system"
        for name in FILESYSTEMS
        if name not in known and not _modprobe(name)
    ]
    try:
        run(["unshare", "--net", "sh", "-c", PROBE], seconds=30)
    except ClusterError as error:
        problems.append(f"iptables, conntrack or veth do not work in a network namespace: {error}")
    return problems


def _modprobe(name: str) -> bool:
    if shutil.which("modprobe") is None:
        return False
    try:
        run(["modprobe", name])
    except ClusterError:
        return False
    return True
