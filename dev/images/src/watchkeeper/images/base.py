"""The base image for machines without an image registry: Debian's own Python, built once."""

import hashlib
import logging
import os
import shutil
import tempfile
from pathlib import Path

from watchkeeper.cluster.build import cache_folder
from watchkeeper.cluster.commands import run
from watchkeeper.cluster.layout import ClusterError

log = logging.getLogger(__name__)

RELEASE = "bookworm"
PACKAGES = "python3,python3-venv,ca-certificates"
MIRROR = "http://deb.debian.org/debian"
# The Dockerfiles install what these have published since.
UPDATES = (
    f"deb {MIRROR} {RELEASE}-updates main",
    f"deb {MIRROR}-security {RELEASE}-security main",
)
# lists, manuals and logs, which no program reads; the licences in usr/share/doc stay
WITHOUT = (
    "dev/*",
    "var/lib/apt/lists/*",
    "var/cache/*",
    "var/log/*",
    "usr/share/man/*",
    "usr/share/locale/*",
)
SECONDS = 900.0
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
DOCKERFILE = f"FROM scratch\nADD base.tar /\nENV PATH={PATH} LANG=C.UTF-8\n"


def key() -> str:
    """Return a digest of what the base is made from, which is its tag."""
    text = "\n".join((RELEASE, PACKAGES, MIRROR, *UPDATES, *WITHOUT, DOCKERFILE))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def make(present: frozenset[str]) -> str:
    """Return the base's name in buildah's store; build it if it is missing.

    Raises:
        ClusterError: the base cannot be built here; the message says why.
    """
    if os.geteuid() != 0:
        raise ClusterError("make images needs root, for buildah and debootstrap: run it as root")
    reference = f"localhost/watchkeeper/base:{key()}"
    if reference in present:
        return reference
    kept = cache_folder() / f"base-{RELEASE}-{key()}"
    if not (kept / "base.tar").exists():
        _bootstrap(kept)
    build = ["buildah", "build", "--isolation", "chroot", "--tag", reference, str(kept)]
    run(build, seconds=SECONDS)
    return reference


def _bootstrap(kept: Path) -> None:
    log.info("base: Debian %s with %s, once", RELEASE, PACKAGES)
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept) as folder:
        root = Path(folder) / "root"
        start = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}"]
        run([*start, RELEASE, root, MIRROR], seconds=SECONDS)
        updates = root / "etc" / "apt" / "sources.list.d" / "updates.list"
        updates.write_text("\n".join(UPDATES) + "\n")
        new = Path(folder) / "base.tar"
        without = [f"--exclude=./{pattern}" for pattern in WITHOUT]
        run(["tar", "--numeric-owner", *without, "-C", root, "-cf", new, "."], seconds=SECONDS)
        (kept / "Dockerfile").write_text(DOCKERFILE)
        shutil.move(new, kept / "base.tar")
