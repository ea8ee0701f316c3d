"""The programs that build and store images: buildah, or Docker for a cluster of kind."""

import logging
import os
from pathlib import Path
from typing import Protocol

from watchkeeper.cluster.commands import run
from watchkeeper.cluster.layout import ClusterError

log = logging.getLogger(__name__)

BUILD_SECONDS = 1800.0
RETAINED_STAGES = 35  # the newest ones, which the next build reuses: five of every image


class Engine(Protocol):
    """Builds, names and removes images."""

    def images(self) -> dict[str, str]:
        """Return the named images: the size as text by the name."""

    def build(self, root: Path, dockerfile: str, reference: str, words: list[str]) -> None:
        """Build a Dockerfile, given by its path below ``root``, with ``root`` as its context."""

    def tag(self, reference: str, another: str) -> None:
        """Give an image another name."""

    def remove(self, references: list[str]) -> None:
        """Remove names, and the images that have no other name."""

    def trim(self) -> None:
        """Remove the stages of old builds, so that the disk does not fill."""


class Buildah:
    """buildah, as root: no daemon."""

    def images(self) -> dict[str, str]:
        """Return the named images: the size as text by the name."""
        listed = _run("buildah", "images", "--format", "{{.Name}}:{{.Tag}}={{.Size}}")
        return _sizes(listed)

    def build(self, root: Path, dockerfile: str, reference: str, words: list[str]) -> None:
        """Build with the host's network, because buildah has no daemon that provides a bridge."""
        start = ("buildah", "build", "--layers", "--isolation", "chroot", "--network", "host")
        file = ("--file", f"{root}/{dockerfile}", "--tag", reference)
        _run(*start, *file, *words, str(root))

    def tag(self, reference: str, another: str) -> None:
        """Give an image another name."""
        _run("buildah", "tag", reference, another)

    def remove(self, references: list[str]) -> None:
        """Remove names, and the images that have no other name."""
        for reference in references:
            self._remove(reference)

    def trim(self) -> None:
        """Remove all stages but the newest, with the layers that only they had."""
        # stages have no name; the newest comes first
        command = ("buildah", "images", "--filter", "dangling=true", "--format", "{{.ID}}")
        for stage in _run(*command).split()[RETAINED_STAGES:]:
            self._remove(stage)

    def _remove(self, name: str) -> None:
        """Remove an image, unless a build that was killed has left a container of it."""
        try:
            _run("buildah", "rmi", name)
        except ClusterError as error:
            log.info("an image could not be removed: %s", error)


class Docker:
    """Docker with BuildKit."""

    def images(self) -> dict[str, str]:
        """Return the named images: the size as text by the name."""
        return _sizes(_run("docker", "images", "--format", "{{.Repository}}:{{.Tag}}={{.Size}}"))

    def build(self, root: Path, dockerfile: str, reference: str, words: list[str]) -> None:
        """Build with BuildKit, which supports the mounts of the Dockerfile."""
        file = ("--file", f"{root}/{dockerfile}", "--tag", reference)
        _run("docker", "build", *file, *words, str(root))

    def tag(self, reference: str, another: str) -> None:
        """Give an image another name."""
        _run("docker", "tag", reference, another)

    def remove(self, references: list[str]) -> None:
        """Remove names, and the images that have no other name."""
        _run("docker", "rmi", *references)

    def trim(self) -> None:
        """Do nothing: Docker removes old stages itself."""


def _sizes(listed: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in listed.splitlines())
    return {name: size for name, _, size in pairs if "<none>" not in name}


def _run(*words: str) -> str:
    # A build fetches packages, so it needs the proxy settings of this process.
    environment = {"DOCKER_BUILDKIT": "1", **os.environ}
    return run(words, seconds=BUILD_SECONDS, environment=environment)
