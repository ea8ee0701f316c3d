"""Where images go: the cluster of `make cluster`, or one of kind."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from watchkeeper.cluster.asking import ask
from watchkeeper.cluster.images import containerd, load_archive
from watchkeeper.cluster.layout import Layout

SECONDS = 600.0


class Place(Protocol):
    """A cluster that runs images."""

    def images(self) -> frozenset[str]:
        """Return the names of the images that it has."""

    def load(self, reference: str) -> None:
        """Bring it an image."""

    def tag(self, names: Mapping[str, str]) -> None:
        """Give images there another name: the old one, the new one."""

    def remove(self, references: list[str]) -> None:
        """Forget names."""


class Cluster:
    """The cluster of `make cluster`, by the socket of its containerd."""

    def __init__(self, folder: Path) -> None:
        self._layout = Layout(folder)

    def runs(self) -> bool:
        """Tell whether there is one."""
        return self._layout.containerd_socket.exists()

    def images(self) -> frozenset[str]:
        """Return the names of the images that it has."""
        return frozenset(containerd(self._layout, "images", "list", "--quiet").split())

    def load(self, reference: str) -> None:
        """Hand the image over as it is: packing and unpacking takes longer than copying."""
        with tempfile.TemporaryDirectory(dir=self._layout.images) as folder:
            archive = Path(folder) / "image.tar"
            push = ["buildah", "push", "--quiet", "--disable-compression", reference]
            ask([*push, f"oci-archive:{archive}:{reference}"], seconds=SECONDS)
            load_archive(self._layout, archive)

    def tag(self, names: Mapping[str, str]) -> None:
        """Give images there another name."""
        for old, new in names.items():
            containerd(self._layout, "images", "tag", "--force", old, new)

    def remove(self, references: list[str]) -> None:
        """Forget names; containerd frees what has none."""
        containerd(self._layout, "images", "remove", *references, seconds=SECONDS)


class Kind:
    """A cluster of kind."""

    def __init__(self, name: str) -> None:
        self._name = name

    def images(self) -> frozenset[str]:
        """Return the names of the images that its node has."""
        node = f"{self._name}-control-plane"
        listed = ask(["docker", "exec", node, "ctr", "-n", "k8s.io", "images", "list", "-q"])
        return frozenset(listed.split())

    def load(self, reference: str) -> None:
        """Bring it an image."""
        command = ["kind", "load", "docker-image", "--name", self._name, reference]
        ask(command, seconds=SECONDS)

    def tag(self, names: Mapping[str, str]) -> None:
        """Load under the new name: kind finds the image there and only names it."""
        for new in names.values():
            self.load(new)

    def remove(self, references: list[str]) -> None:
        """Forget names."""
        node = f"{self._name}-control-plane"
        ask(["docker", "exec", node, "ctr", "-n", "k8s.io", "images", "remove", *references])
