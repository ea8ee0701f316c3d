"""Folders that hold a system's state are closed to other users, whoever makes them first."""

from pathlib import Path


def make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for this user only.

    Those that are there stay as they are.
    """
    above = [folder, *folder.parents]
    for path in reversed([path for path in above if not path.exists()]):
        path.mkdir(mode=0o700, exist_ok=True)
