"""The layout of a spool: numbered segments of lines, written by the server, read by its sidecar.

The server appends to the highest segment only and begins a new one when that is large enough. It
allocates ahead: behind the last line of a segment that it has not closed are zeros, and no line has
a zero in it. The sidecar deletes segments below the highest once they are shipped, and keeps its
place in ``checkpoint.json``. ``identity`` names the spool in the ledger for as long as the folder
lives.
"""

import os
import uuid
from pathlib import Path

import msgspec

CHECKPOINT = "checkpoint.json"
IDENTITY = "identity"
SUFFIX = ".jsonl"


class Checkpoint(msgspec.Struct, frozen=True):
    """All bytes before ``offset`` of ``segment``, and all lower segments, are shipped.

    The counts are of everything before that place, so that reading it again counts nothing
    twice: records ``lost`` to a full spool or unreadable, lines ``torn`` by a killed server, and
    requests ``shed`` under overload, which have no record of their own.
    """

    segment: int = 1
    offset: int = 0
    lost: int = 0
    torn: int = 0
    shed: int = 0


def segment_path(folder: Path, number: int) -> Path:
    """Where segment ``number``, counted from 1, lies."""
    return folder / f"{number:08d}{SUFFIX}"


def segments(folder: Path) -> list[int]:
    """The numbers of the segments present, rising."""
    return sorted(int(path.stem) for path in folder.glob(f"*{SUFFIX}") if path.stem.isdigit())


def written(content: bytes) -> bytes:
    """Return the part of a segment's content that has been written, without what is allocated."""
    return content.partition(b"\0")[0]


def identity(folder: Path) -> str:
    """Return the spool's identity, made by whoever asks first."""
    path = folder / IDENTITY
    if not path.exists():
        draft = folder / f".{IDENTITY}.{os.getpid()}"
        draft.write_text(uuid.uuid4().hex)
        try:
            os.link(draft, path)  # unlike a rename, never replaces the other's
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text()


def replace_file(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` so that a reader sees the old file or the new one, whole."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(content)
    draft.replace(path)
