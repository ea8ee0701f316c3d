"""Folders with the state of a system are private, whichever program creates them first."""

from pathlib import Path


def make_private(folder: Path) -> None:
    """Create a folder and its missing parents with access for this user only.

    Existing folders keep their permissions.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
