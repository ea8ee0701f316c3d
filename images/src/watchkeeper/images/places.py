"""Where images go: the cluster of `make cluster`, or one of kind."""

import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from watchkeeper.cluster.asking import ask
from watchkeeper.cluster.images import containerd, load_archive
from watchkeeper.cluster.layout import Layout

SECONDS = 600.0
CONTENTS = "containerd/io.containerd.content.v1.content/blobs/sha256"


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
        """Hand over the layers that it does not have, unpacked: copying them is quicker."""
        present = self._contents()
        with tempfile.TemporaryDirectory(dir=self._layout.images) as text:
            folder, archive = Path(text) / "image", Path(text) / "image.tar"
            blobs = folder / "blobs" / "sha256"
            blobs.mkdir(parents=True)
            for digest, size in present.items():
                # an empty file of the right size: buildah takes the layer for written already
                with (blobs / digest).open("wb") as file:
                    file.truncate(size)
            push = ["buildah", "push", "--quiet", "--disable-compression", reference]
            ask([*push, f"oci:{folder}:{reference}"], seconds=SECONDS)
            with tarfile.open(archive, "w") as tar:
                for path in sorted(folder.rglob("*")):
                    if path.is_file() and path.name not in present:
                        tar.add(path, path.relative_to(folder).as_posix())
            load_archive(self._layout, archive)

    def _contents(self) -> dict[str, int]:
        """Return what its containerd has: sizes by digest."""
        listed = containerd(self._layout, "content", "list", "--quiet").split()
        folder = self._layout.folder / CONTENTS
        paths = {name: folder / name for name in (d.removeprefix("sha256:") for d in listed)}
        return {name: path.stat().st_size for name, path in paths.items() if path.exists()}

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
