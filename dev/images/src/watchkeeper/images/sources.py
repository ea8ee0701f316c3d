"""What each image is built from, and the digests that name it."""

import hashlib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

REGISTRY: Final = "localhost/watchkeeper"
COMPONENT_FILE: Final = "images/Dockerfile"
# The files that every image is built from.
SHARED: Final = (
    *("uv-requirements.txt", ".dockerignore", COMPONENT_FILE),
    *("images/bytecode", "images/minimal", "images/trim"),
)


class Image(msgspec.Struct, frozen=True):
    """One image: its Dockerfile, the build arguments, and the files and folders it depends on."""

    dockerfile: str
    arguments: dict[str, str] = {}
    sources: tuple[str, ...] = ()


def images(root: Path) -> dict[str, Image]:
    """Return all images of the sources in ``root`` by their names.

    The image for training contains the models that are declared in ``models/``.
    """
    models = sorted(path.parent for path in root.glob("models/*/pyproject.toml"))
    return {
        "watchkeeper-cli": _component(root, "cli"),
        "watchkeeper-rollout": _component(root, "rollout"),
        "watchkeeper-drift": _component(root, "drift", own_lock=True),
        "watchkeeper-serving": _component(root, "serving", own_lock=True),
        "watchkeeper-training": _component(root, "training", packages=models),
        "watchkeeper-mlflow": _folder("images/mlflow"),
        "watchkeeper-postgresql": _folder("images/postgresql"),
    }


def digests(root: Path, base: str) -> dict[str, str]:
    """Return a digest of every image's sources, and of the ``base`` it stands on, by its name."""
    return {name: _digest(root, image, base) for name, image in images(root).items()}


def tag_of(made_from: Mapping[str, str]) -> str:
    """Return the one tag that names all images of these digests."""
    text = "".join(f"{name} {digest}\n" for name, digest in sorted(made_from.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _component(
    root: Path, name: str, *, own_lock: bool = False, packages: Iterable[Path] = ()
) -> Image:
    """Describe a component's image; ``packages`` are projects that it contains besides."""
    folders = [root / name, *packages]
    project = name if own_lock else "."
    arguments = {"COMPONENT": name, "PROJECT": project}
    if len(folders) > 1:
        arguments["PACKAGES"] = " ".join(_project(folder)["name"] for folder in folders)
    needed = sorted({needed for folder in folders for needed in _needed(folder.resolve())})
    lock = f"{name}/uv.lock" if own_lock else "uv.lock"
    projects = [path.relative_to(root.resolve()).as_posix() for path in needed]
    sources = (
        *(*SHARED, lock),
        *(f"{project}/{part}" for project in projects for part in ("pyproject.toml", "src")),
    )
    return Image(COMPONENT_FILE, arguments, sources)


def _folder(folder: str) -> Image:
    """Describe an image with a Dockerfile of its own, built from what lies beside it."""
    return Image(f"{folder}/Dockerfile", sources=(*SHARED, "images/on-change", folder))


def _project(folder: Path) -> dict[str, str]:
    found: dict[str, str] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return found


def _needed(folder: Path) -> set[Path]:
    """Return the folders of a project and of all projects of ours that it depends on."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    needed = {folder}
    for requirement in project["project"]["dependencies"]:
        if requirement.startswith("watchkeeper-"):
            name = requirement.partition("[")[0].removeprefix("watchkeeper-")
            needed |= _needed(_root(folder) / name)
    return needed


def _root(folder: Path) -> Path:
    """Return the folder with the workspace's lock above a project."""
    return next(above for above in folder.parents if (above / "uv.lock").exists())


def _digest(root: Path, image: Image, base: str) -> str:
    made_from = hashlib.sha256(base.encode())
    made_from.update(msgspec.json.encode(image.arguments))
    for source in image.sources:
        for path in _files(root / source):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            made_from.update(f"{path.relative_to(root)} {content}\n".encode())
    return made_from.hexdigest()[:12]


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for inner in sorted(path.rglob("*")) if path.is_dir() else ():
        if inner.is_file() and not {"__pycache__", ".venv"} & set(inner.parts):
            yield inner
