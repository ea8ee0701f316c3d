"""The content of images that `make images` or Docker has built."""

import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from watchkeeper.images.sources import REGISTRY

ROOT = Path(__file__).parents[3]
SECONDS = 300.0


class File(NamedTuple):
    """A file in an image: its path without the first slash, its mode and its bytes on disk."""

    path: str
    mode: int
    size: int


class Built:
    """A container of an image."""

    def __init__(self, engine: str, container: str, reference: str) -> None:
        self._engine, self._container, self._reference = engine, container, reference

    def files(self) -> Iterator[File]:
        """Yield everything but folders; a file with several names counts once."""
        if self._engine == "docker":
            export = ("docker", "export", self._container)
            with (
                subprocess.Popen(export, stdout=subprocess.PIPE) as process,
                tarfile.open(fileobj=process.stdout, mode="r|") as archive,
            ):
                for member in archive:
                    if not member.isdir():
                        size = member.size if member.isreg() else 0
                        yield File(member.name, member.mode, size)
            return
        folder = Path(_run("buildah", "mount", self._container).strip())
        seen: set[int] = set()
        for above, _, names in os.walk(folder):
            for name in names:
                path = Path(above, name)
                found = path.lstat()
                size = found.st_size if stat.S_ISREG(found.st_mode) else 0
                if found.st_ino in seen:
                    size = 0
                seen.add(found.st_ino)
                yield File(path.relative_to(folder).as_posix(), found.st_mode, size)

    def run(self, *words: str) -> str:
        """Run a program in the image, as its user, and return what it prints."""
        if self._engine == "docker":
            entrypoint = ("docker", "run", "--rm", f"--entrypoint={words[0]}")
            return _run(*entrypoint, self._reference, *words[1:])
        return _run("buildah", "run", "--isolation", "chroot", self._container, "--", *words)


@contextmanager
def built(image: str) -> Iterator[Built]:
    """Yield a container of an image with the present tag; skip the test without that image.

    WATCHKEEPER_TEST_IMAGES=required makes a missing image a failure.
    """
    tag = ROOT / ".images" / "tag"
    reference = f"{REGISTRY}/{image}:{tag.read_text().strip()}" if tag.exists() else ""
    engine = next((e for e in ("buildah", "docker") if reference and _has(e, reference)), "")
    if not engine:
        reason = f"{image} is not built; `make images` builds it"
        if os.environ.get("WATCHKEEPER_TEST_IMAGES") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    create = ("from", "--pull-never") if engine == "buildah" else ("create",)
    container = _run(engine, *create, reference).strip()
    try:
        yield Built(engine, container, reference)
    finally:
        _run(engine, "rm", container)


def _has(engine: str, reference: str) -> bool:
    if not shutil.which(engine) or (engine == "buildah" and os.geteuid() != 0):
        return False
    inspect = ("inspect", "--type", "image", reference)
    return subprocess.run([engine, *inspect], capture_output=True, check=False).returncode == 0


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout
