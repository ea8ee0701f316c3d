"""The files of a mounted Secret."""

from pathlib import Path


def current_folder(folder: Path) -> Path:
    """Return the folder with the present files of a Secret that is mounted at ``folder``.

    What Kubernetes mounts is a link to a folder that is replaced as a whole. All files that belong
    together are read from one such folder.
    """
    link = folder / "..data"
    return link.resolve() if link.exists() else folder
