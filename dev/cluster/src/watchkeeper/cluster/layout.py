"""The paths of a cluster's files, outside and inside its namespaces, and names from them."""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NODE = "node"
POD_RANGE = "10.244.0.0/16"
SERVICE_RANGE = "10.96.0.0/16"
DNS_SERVICE = "10.96.0.10"
API_SERVICE = "10.96.0.1"
API_PORT = 6443
INSIDE = Path("/run/cluster")  # the state folder as the namespaces see it
MARK = ".watchkeeper-cluster"  # a folder without this file is never removed


class ClusterError(Exception):
    """The cluster cannot run; the message says what is wrong, where, and what to do."""


class Layout:
    """The state folder of one cluster. It contains all files of the cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.identity = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:8]
        self.interface = f"wk-{self.identity}"  # the host's end of the veth pair
        self.cgroup = f"watchkeeper-{self.identity}"
        self.kubeconfig = self.folder / "kubeconfig"
        self.certificates = self.folder / "certificates"
        self.config = self.folder / "config"
        self.logs = self.folder / "logs"
        self.hold = self.folder / "hold"
        self.images = self.folder / "images"
        self.programs_file = self.folder / "programs.json"
        self.status_file = self.folder / "status.json"
        self.address_file = self.folder / "address"
        self.containerd_socket = self.folder / "containerd.sock"

    def make(self) -> None:
        """Create the folders; only their owner can read them."""
        if self.folder.exists() and any(self.folder.iterdir()) and not self.is_ours():
            raise ClusterError(
                f"{self.folder} is not empty and has no cluster: "
                "set WATCHKEEPER_CLUSTER to another folder"
            )
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.folder / MARK).touch()
        for folder in (self.certificates, self.config, self.logs, self.hold, self.images):
            folder.mkdir(mode=0o700, exist_ok=True)
        for name in ("etcd", "containerd", "kubelet", "cni", "pod-logs", "volumes"):
            (self.folder / name).mkdir(mode=0o755, exist_ok=True)

    def is_ours(self) -> bool:
        """Return whether the folder was created for a cluster."""
        return (self.folder / MARK).exists()

    def inside(self, path: Path) -> str:
        """Return the path inside the namespaces of a ``path`` in the state folder."""
        return str(INSIDE / path.relative_to(self.folder))

    @contextmanager
    def locked(self, seconds: float) -> Iterator[None]:
        """Lock the folder against every other ``up`` and ``down``.

        Raises:
            ClusterError: another process has held the lock for ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while True:
            handle = os.open(self.folder, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The folder may have been removed by the previous holder of the lock.
                if self.folder.exists() and os.fstat(handle).st_ino == self.folder.stat().st_ino:
                    break
            except BlockingIOError:
                pass
            os.close(handle)
            if not self.folder.exists():
                self.make()
            if time.monotonic() > deadline:
                raise ClusterError(f"{self.folder}: another 'make cluster' is still running")
            time.sleep(0.2)
        try:
            yield
        finally:
            os.close(handle)


def write(path: Path, text: str) -> bool:
    """Write ``text`` to ``path`` atomically, for its owner; return whether it has changed."""
    if path.exists() and path.read_text() == text:
        return False
    new = path.with_name(path.name + ".new")
    new.touch(mode=0o600)
    new.write_text(text)
    new.replace(path)
    return True
