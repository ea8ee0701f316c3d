"""Volumes: a fixed number of folders on the node, as the default StorageClass.

There is no provisioner. The next `make cluster` empties volumes whose claim is gone and offers them
again. Volumes of the kind "local" support fsGroup, so pods that do not run as root can use them.
"""

import shutil

from watchkeeper.cluster.kubernetes import Kubernetes, Object
from watchkeeper.cluster.layout import INSIDE, NODE, Layout

CLASS = "node"
VOLUMES = 12
SIZE = "10Gi"  # the largest request of a claim; not enforced


def install(layout: Layout, kubernetes: Kubernetes) -> None:
    """Create the volumes; create released ones again."""
    listed = kubernetes.get("persistentvolumes") or {"items": []}
    for volume in listed["items"]:
        name = volume["metadata"]["name"]
        released = volume.get("status", {}).get("phase") in ("Released", "Failed")
        if volume["spec"].get("storageClassName") == CLASS and released:
            kubernetes.kubectl("delete", "persistentvolume", name)
            shutil.rmtree(layout.folder / "volumes" / name)
    names = [f"node-{number:02}" for number in range(VOLUMES)]
    for name in names:
        (layout.folder / "volumes" / name).mkdir(mode=0o777, exist_ok=True)
    kubernetes.apply([_storage_class(), *(_volume(name) for name in names)])


def _storage_class() -> Object:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def _volume(name: str) -> Object:
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": SIZE},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": CLASS,
            "local": {"path": str(INSIDE / "volumes" / name)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }
