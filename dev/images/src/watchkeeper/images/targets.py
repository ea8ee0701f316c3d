"""The clusters that images are loaded into: the one of `make cluster`, or one of kind."""

import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from watchkeeper.cluster.commands import run
from watchkeeper.cluster.images import containerd, load_archive
from watchkeeper.cluster.layout import Layout

SECONDS = 600.0
CONTENTS = "containerd/io.containerd.content.v1.content/blobs/sha256"


class Target(Protocol):
    """A cluster that runs images."""

    def images(self) -> frozenset[str]:
        """Return the names of the images in the cluster."""

    def load(self, reference: str) -> None:
        """Copy an image into the cluster."""

    def tag(self, names: Mapping[str, str]) -> None:
        """Give images there another name; ``names`` maps old names to new ones."""

    def remove(self, references: list[str]) -> None:
        """Remove image names."""


class Cluster:
    """The cluster of `make cluster`, by the socket of its containerd."""

    def __init__(self, folder: Path) -> None:
        self._layout = Layout(folder)

    def runs(self) -> bool:
        """Tell whether the cluster runs."""
        return self._layout.containerd_socket.exists()

    def images(self) -> frozenset[str]:
        """Return the names of the images in the cluster."""
        return frozenset(containerd(self._layout, "images", "list", "--quiet").split())

    def load(self, reference: str) -> None:
        """Copy the layers that the cluster does not have, unpacked, which is faster."""
        present = self._contents()
        with tempfile.TemporaryDirectory(dir=self._layout.images) as text:
            folder, archive = Path(text) / "image", Path(text) / "image.tar"
            blobs = folder / "blobs" / "sha256"
            blobs.mkdir(parents=True)
            for digest, size in present.items():
                # buildah takes an empty file of the right size for a layer that exists already
                with (blobs / digest).open("wb") as file:
                    file.truncate(size)
            push = ["buildah", "push", "--quiet", "--disable-compression", reference]
            run([*push, f"oci:{folder}:{reference}"], seconds=SECONDS)
            with tarfile.open(archive, "w") as tar:
                for path in sorted(folder.rglob("*")):
                    if path.is_file() and path.name not in present:
                        tar.add(path, path.relative_to(folder).as_posix())
            load_archive(self._layout, archive)

    def _contents(self) -> dict[str, int]:
        """Return the contents of the cluster's containerd: sizes in bytes by digest."""
        listed = containerd(self._layout, "content", "list", "--quiet").split()
        folder = self._layout.folder / CONTENTS
        paths = {name: folder / name for name in (d.removeprefix("sha256:") for d in listed)}
        return {name: path.stat().st_size for name, path in paths.items() if path.exists()}

    def tag(self, names: Mapping[str, str]) -> None:
        """Give images there another name; ``names`` maps old names to new ones."""
        for old, new in names.items():
            containerd(self._layout, "images", "tag", "--force", old, new)

    def remove(self, references: list[str]) -> None:
        """Remove image names; containerd deletes the content that has no name left."""
        containerd(self._layout, "images", "remove", *references, seconds=SECONDS)


class Kind:
    """A cluster of kind."""

    def __init__(self, name: str) -> None:
        self._name = name

    def images(self) -> frozenset[str]:
        """Return the names of the images on the cluster's node."""
        node = f"{self._name}-control-plane"
        listed = run(["docker", "exec", node, "ctr", "-n", "k8s.io", "images", "list", "-q"])
        return frozenset(listed.split())

    def load(self, reference: str) -> None:
        """Copy an image into the cluster."""
        command = ["kind", "load", "docker-image", "--name", self._name, reference]
        run(command, seconds=SECONDS)

    def tag(self, names: Mapping[str, str]) -> None:
        """Load under the new name; kind finds the image there and only adds the name."""
        for new in names.values():
            self.load(new)

    def remove(self, references: list[str]) -> None:
        """Remove image names."""
        node = f"{self._name}-control-plane"
        run(["docker", "exec", node, "ctr", "-n", "k8s.io", "images", "remove", *references])
