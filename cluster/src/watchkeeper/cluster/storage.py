"""Volumes: a fixed number of folders on the node, as the default StorageClass.

There is no provisioner; a volume whose claim is gone is emptied and offered again by the next
`make cluster`. Volumes of the kind "local" take a pod's fsGroup, so that they serve pods that
do not run as root.
"""

import shutil

from watchkeeper.cluster.kubernetes import Kubernetes, Object
from watchkeeper.cluster.layout import INSIDE, NODE, Layout

CLASS = "node"
VOLUMES = 12
SIZE = "10Gi"  # what a claim may ask for; nothing enforces it


def install(layout: Layout, kubernetes: Kubernetes) -> None:
    """Offer the volumes, and again those that were released."""
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
