"""The files of a spool: the server writes them, its sidecar reads and deletes them.

A spool is a folder with numbered segments of lines, see :mod:`watchkeeper.core.record` for a line.

``00000001.jsonl``   The server appends to the segment with the highest number only, and starts a
                     new one when it is large enough. It allocates ahead: after the last line of the
                     last segment there are zero bytes. A line contains no zero byte.
``checkpoint.json``  How far the sidecar has shipped. It deletes a shipped segment when a higher one
                     exists.
``identity``         The id of the spool in the ledger, as long as the folder exists.
"""

import os
import uuid
from pathlib import Path
from typing import Final

import msgspec

CHECKPOINT: Final = "checkpoint.json"
IDENTITY: Final = "identity"
SUFFIX: Final = ".jsonl"


class Checkpoint(msgspec.Struct, frozen=True):
    """How far the sidecar has shipped a spool.

    The numbers count everything before this place, so reading a part again counts nothing twice.

    Attributes:
        segment: The number of a segment. All lower segments are shipped.
        offset: All bytes of the segment before this offset are shipped.
        lost: Records that did not fit into the spool, or were not readable.
        torn: Incomplete lines of a killed server.
        shed: Requests that an overloaded server rejected; they have no records.
    """

    segment: int = 1
    offset: int = 0
    lost: int = 0
    torn: int = 0
    shed: int = 0


def segment_path(folder: Path, number: int) -> Path:
    """Return the path of a segment; numbers start with 1."""
    return folder / f"{number:08d}{SUFFIX}"


def segments(folder: Path) -> list[int]:
    """Return the numbers of all segments in a folder, in ascending order."""
    return sorted(int(path.stem) for path in folder.glob(f"*{SUFFIX}") if path.stem.isdigit())


def written_part(content: bytes) -> bytes:
    """Return the lines of a segment without the allocated zero bytes behind them."""
    return content.partition(b"\0")[0]


def identity(folder: Path) -> str:
    """Return the id of a spool; the first call creates it."""
    path = folder / IDENTITY
    if not path.exists():
        draft = folder / f".{IDENTITY}.{os.getpid()}"
        draft.write_text(uuid.uuid4().hex)
        try:
            os.link(draft, path)  # unlike a rename, this never replaces an existing file
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text()


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file atomically: readers see the old content or the new one, never a part."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(content)
    draft.replace(path)
