"""Start a cluster, and remove it completely."""

import logging
import shutil
import time
from pathlib import Path

import msgspec

from watchkeeper.cluster import build, images, namespaces, network, programs, requirements
from watchkeeper.cluster.certificates import Certificates
from watchkeeper.cluster.kubernetes import Kubernetes
from watchkeeper.cluster.layout import API_PORT, NODE, ClusterError, Layout, write
from watchkeeper.cluster.prerequisites import Prerequisites

log = logging.getLogger(__name__)

OTHERS_SECONDS = 600.0  # another process may be building
READY_SECONDS = 180.0


def up(folder: Path) -> str:
    """Start or repair the cluster in ``folder``; return the node's address.

    Raises:
        ClusterError: the cluster cannot start; the message says why and what to do.
    """
    started = time.monotonic()
    requirements.check_root()
    go = build.go_version()
    requirements.check()
    builds = build.build_all(build.cache_folder(), go)
    layout = Layout(folder)
    layout.make()
    with layout.locked(OTHERS_SECONDS):
        layout.make()
        node = network.node_address(layout)
        Certificates(layout).make(node)
        needed = images.describe(builds)
        wanted = programs.describe(layout, builds, needed, node)
        write(layout.programs_file, msgspec.json.encode(wanted).decode())
        init = namespaces.find(layout)
        if init is None:
            log.info("starting the node at %s", node)
            init = namespaces.start(layout)
        network.attach(layout, node, init)
        kubernetes = Kubernetes(layout, builds["kubernetes"].program("kubectl"))
        kubernetes.wait("containerd answers", lambda: _containerd_answers(layout))
        images.load(layout, needed)
        _link(layout, builds)
        kubernetes.wait(
            "the API server is ready",
            lambda: kubernetes.kubectl("get", "--raw", "/readyz", seconds=5).startswith("ok"),
            READY_SECONDS,
        )
        kubernetes.wait("the node is ready", lambda: _node_is_ready(kubernetes), READY_SECONDS)
        log.info("node ready after %.0f s", time.monotonic() - started)
        Prerequisites(layout, kubernetes, builds, needed, node).install()
    log.info("cluster ready after %.0f s", time.monotonic() - started)
    return node


def down(folder: Path) -> None:
    """Stop the cluster in ``folder`` and remove it, except for the cached builds."""
    layout = Layout(folder)
    if not layout.is_ours():
        log.info("no cluster in %s", layout.folder)
        return
    with layout.locked(OTHERS_SECONDS):
        namespaces.end(layout)
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        below = [line for line in mounts if f" {layout.folder}/" in line]
        if below:
            raise ClusterError(f"not removed: something is mounted in {layout.folder}: {below}")
        shutil.rmtree(layout.folder)
    log.info("the cluster in %s is removed", layout.folder)


def _containerd_answers(layout: Layout) -> bool:
    images.containerd(layout, "version", seconds=5)
    return True


def _node_is_ready(kubernetes: Kubernetes) -> bool:
    found = kubernetes.get(f"node/{NODE}") or {}
    conditions = found.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _link(layout: Layout, builds: dict[str, build.Built]) -> None:
    """Link the programs for users in .cluster/bin."""
    folder = layout.folder / "bin"
    folder.mkdir(exist_ok=True)
    for name, program in (("kubernetes", "kubectl"), ("helm", "helm")):
        link = folder / program
        link.unlink(missing_ok=True)
        link.symlink_to(builds[name].program(program))


def summary(folder: Path, node: str) -> str:
    """Return the addresses and the next command for the user."""
    layout = Layout(folder)
    return (
        f"API server  https://{node}:{API_PORT}\n"
        f"gateways    http://{node}:<port of the listener> (class envoy)\n"
        f"next        export KUBECONFIG={layout.kubeconfig} PATH={layout.folder}/bin:$PATH"
    )
