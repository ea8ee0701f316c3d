"""The programs that build images and keep them: buildah, or Docker where there is kind."""

import logging
import os
from pathlib import Path
from typing import Protocol

from watchkeeper.cluster.asking import ask
from watchkeeper.cluster.layout import ClusterError

log = logging.getLogger(__name__)

BUILD_SECONDS = 1800.0
STAGES = 14  # that are kept to build on: two of every image


class Engine(Protocol):
    """Builds images, names them, and forgets them."""

    def images(self) -> dict[str, str]:
        """Return the images that have a name: the name, and the size in words."""

    def build(self, root: Path, folder: str, reference: str, words: list[str]) -> None:
        """Build the Dockerfile in ``folder`` with ``root`` as its context."""

    def tag(self, reference: str, another: str) -> None:
        """Give an image another name."""

    def remove(self, references: list[str]) -> None:
        """Forget names, and the images that have no other."""

    def trim(self) -> None:
        """Forget stages of builds long past, so that the disk does not fill."""


class Buildah:
    """buildah, as root: no daemon."""

    def images(self) -> dict[str, str]:
        """Return the images that have a name: the name, and the size in words."""
        listed = _run("buildah", "images", "--format", "{{.Name}}:{{.Tag}}={{.Size}}")
        return _sizes(listed)

    def build(self, root: Path, folder: str, reference: str, words: list[str]) -> None:
        """Build in the machine's network: there is no bridge without a daemon."""
        start = ("buildah", "build", "--layers", "--isolation", "chroot", "--network", "host")
        file = ("--file", f"{root}/{folder}/Dockerfile", "--tag", reference)
        _run(*start, *file, *words, str(root))

    def tag(self, reference: str, another: str) -> None:
        """Give an image another name."""
        _run("buildah", "tag", reference, another)

    def remove(self, references: list[str]) -> None:
        """Forget names, and the images that have no other."""
        _run("buildah", "rmi", *references)

    def trim(self) -> None:
        """Forget all stages but the newest, with the layers that only they had."""
        # without names, the newest first
        command = ("buildah", "images", "--filter", "dangling=true", "--format", "{{.ID}}")
        for stage in _run(*command).split()[STAGES:]:
            try:
                _run("buildah", "rmi", stage)
            except ClusterError as error:  # the container of a build that was killed needs it
                log.info("a stage stays: %s", error)


class Docker:
    """Docker with BuildKit."""

    def images(self) -> dict[str, str]:
        """Return the images that have a name: the name, and the size in words."""
        return _sizes(_run("docker", "images", "--format", "{{.Repository}}:{{.Tag}}={{.Size}}"))

    def build(self, root: Path, folder: str, reference: str, words: list[str]) -> None:
        """Build with BuildKit, which knows mounts."""
        file = ("--file", f"{root}/{folder}/Dockerfile", "--tag", reference)
        _run("docker", "build", *file, *words, str(root))

    def tag(self, reference: str, another: str) -> None:
        """Give an image another name."""
        _run("docker", "tag", reference, another)

    def remove(self, references: list[str]) -> None:
        """Forget names, and the images that have no other."""
        _run("docker", "rmi", *references)

    def trim(self) -> None:
        """Leave it to Docker, which trims its own."""


def _sizes(listed: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in listed.splitlines())
    return {name: size for name, _, size in pairs if "<none>" not in name}


def _run(*words: str) -> str:
    # the proxies too: a build fetches packages
    environment = {"DOCKER_BUILDKIT": "1", **os.environ}
    return ask(words, seconds=BUILD_SECONDS, environment=environment)
