"""What each image is made from, and the digests that name it."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

REGISTRY = "localhost/watchkeeper"
# an image's name -> its folder, which has its Dockerfile
IMAGES = {
    "watchkeeper-cli": "cli",
    "watchkeeper-rollout": "rollout",
    "watchkeeper-drift": "drift",
    "watchkeeper-serving": "serving",
    "watchkeeper-training": "training",
    "watchkeeper-mlflow": "registry",
    "watchkeeper-postgresql": "postgresql",
}
# what an image's folder may bring, and what those with code of ours share
OWN = ("Dockerfile", "pyproject.toml", "uv.lock", "start", "src")
SHARED = (
    *("uv-requirements.txt", ".dockerignore", "images/trim"),
    *("core/pyproject.toml", "core/src"),
)


def digests(root: Path, base: str) -> dict[str, str]:
    """Return a digest of every image's sources, and of the ``base`` it stands on, by its name."""
    return {
        name: _digest(root, [*SHARED, *(f"{folder}/{own}" for own in OWN)], base)
        for name, folder in IMAGES.items()
    }


def tag_of(made_from: Mapping[str, str]) -> str:
    """Return the one tag that names all images of these digests."""
    text = "".join(f"{name} {digest}\n" for name, digest in sorted(made_from.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _digest(root: Path, parts: Iterable[str], base: str) -> str:
    made_from = hashlib.sha256(base.encode())
    for part in parts:
        for path in _files(root / part):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            made_from.update(f"{path.relative_to(root)} {content}\n".encode())
    return made_from.hexdigest()[:12]


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for inner in sorted(path.rglob("*")) if path.is_dir() else ():
        if inner.is_file() and "__pycache__" not in inner.parts:
            yield inner
