"""Read a spool from a checkpoint: one batch of limited size, and the checkpoint after it.

Reading changes nothing. The same checkpoint gives the same batch again, or a longer one.
"""

import logging
from pathlib import Path

import msgspec

from watchkeeper.core.record import Gap, LabelRecord, Prediction, Shed, decode_line
from watchkeeper.core.spool import CHECKPOINT, Checkpoint, segment_path, segments, written_part

# About 1,000 records of one row: a transaction locks the ledger for milliseconds.
BATCH_BYTES = 256 * 1024

log = logging.getLogger(__name__)


class LocatedGap(msgspec.Struct, frozen=True):
    """A line about requests without a record. Segment and position identify the line."""

    segment: int
    position: int
    line: Gap | Shed


class SpoolBatch(msgspec.Struct, frozen=True):
    """The records between two checkpoints.

    ``checkpoint`` is the place after the batch. ``at_end`` is True if the spool contained nothing
    behind it. ``pending`` counts the bytes of a last line that is not complete yet.
    """

    checkpoint: Checkpoint
    at_end: bool
    predictions: list[Prediction] = []
    labels: list[LabelRecord] = []
    gaps: list[LocatedGap] = []
    pending: int = 0


def read_checkpoint(folder: Path) -> Checkpoint:
    """Return the checkpoint of a spool; the start of the spool if there is none or it is broken."""
    path = folder / CHECKPOINT
    try:
        return msgspec.json.decode(path.read_bytes(), type=Checkpoint)
    except FileNotFoundError:
        return Checkpoint()
    except msgspec.MsgspecError as error:
        # This is safe: the ledger recognises every record by its id.
        log.warning("%s: %s; the whole spool is shipped again", path, error)
        return Checkpoint()


def read_batch(folder: Path, checkpoint: Checkpoint, limit: int = BATCH_BYTES) -> SpoolBatch:
    """Read the complete lines behind a checkpoint, from one segment.

    Args:
        folder: the spool.
        checkpoint: where to start.
        limit: the number of bytes to read. A line that is longer is read as a whole.

    Returns:
        The batch. A line that cannot be decoded is counted as lost in its checkpoint.
    """
    # List the segments first. The server appends to the highest segment only, so a segment below
    # another one is complete, and an incomplete line at its end stays incomplete.
    present = [number for number in segments(folder) if number >= checkpoint.segment]
    if not present:
        return SpoolBatch(checkpoint, at_end=True)
    start = checkpoint
    if present[0] != start.segment:
        start = _start_of(present[0], start)
    complete = present[-1] > start.segment
    path = segment_path(folder, start.segment)
    if path.stat().st_size < start.offset:
        log.error(
            "%s: is shorter than its checkpoint %d; it is read from its start", path, start.offset
        )
        start = _start_of(start.segment, start)

    chunk, more = _read_lines(path, start.offset, limit)
    size = chunk.rfind(b"\n") + 1
    batch = _decode(chunk[:size].split(b"\n")[:-1], start)
    rest = len(chunk) - size
    if more or not complete:
        return msgspec.structs.replace(batch, at_end=not more, pending=0 if more else rest)

    if rest:
        log.warning("segment %d ends with an incomplete line of %d bytes", start.segment, rest)
    following = _start_of(min(n for n in present if n > start.segment), batch.checkpoint)
    following = msgspec.structs.replace(following, torn=following.torn + bool(rest))
    return msgspec.structs.replace(batch, checkpoint=following)


def _start_of(segment: int, checkpoint: Checkpoint) -> Checkpoint:
    """Return the start of a segment, with the counts of a checkpoint."""
    return msgspec.structs.replace(checkpoint, segment=segment, offset=0)


def _read_lines(path: Path, offset: int, limit: int) -> tuple[bytes, bool]:
    """Read at least one complete line if there is one; also return whether more bytes follow."""
    parts: list[bytes] = []
    with path.open("rb") as file:
        file.seek(offset)
        while not parts or b"\n" not in parts[-1]:
            parts.append(written_part(file.read(limit)))
            if len(parts[-1]) < limit:
                return b"".join(parts), False
        return b"".join(parts), bool(written_part(file.read(1)))


def _decode(lines: list[bytes], start: Checkpoint) -> SpoolBatch:
    """Decode complete lines; count a line that cannot be decoded as lost."""
    offset, lost, shed = start.offset, start.lost, start.shed
    predictions: list[Prediction] = []
    labels: list[LabelRecord] = []
    gaps: list[LocatedGap] = []
    for line in lines:
        position, offset = offset, offset + len(line) + 1
        try:
            records = decode_line(line)
        except msgspec.MsgspecError as error:
            lost += 1
            log.warning(
                "segment %d: a line of %d bytes is not a record: %s",
                start.segment,
                len(line),
                error,
            )
            continue
        for record in records:
            match record:
                case Prediction():
                    predictions.append(record)
                case LabelRecord():
                    labels.append(record)
                case Gap():
                    lost += record.lost
                    gaps.append(LocatedGap(start.segment, position, record))
                case Shed():
                    shed += record.count
                    gaps.append(LocatedGap(start.segment, position, record))
    checkpoint = msgspec.structs.replace(start, offset=offset, lost=lost, shed=shed)
    return SpoolBatch(checkpoint, at_end=False, predictions=predictions, labels=labels, gaps=gaps)
