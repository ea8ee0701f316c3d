"""What a library's own file loses: a JSON file beside it."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from watchkeeper.core.version import BrokenVersionError


def write_side_file(path: Path, content: dict[str, Any]) -> None:
    """Write ``path.json``; ``content["class"]`` is the class of the estimator."""
    path.with_name(f"{path.name}.json").write_bytes(msgspec.json.encode(content))


def read_side_file(path: Path, classes: Collection[str]) -> dict[str, Any]:
    """Read ``path.json``.

    Raises:
        BrokenVersionError: It cannot be read, or its class is not one of ``classes``.
    """
    file = path.with_name(f"{path.name}.json")
    try:
        content = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as error:
        raise BrokenVersionError(f"{file}: {error}") from error
    if content.get("class") not in classes:
        raise BrokenVersionError(f"{file}: its class is {content.get('class')!r}, not in {classes}")
    return content
