"""Reading a spool from a checkpoint on: one bounded batch, and the checkpoint after it.

Nothing here writes: reading the same place again gives the same batch or a longer one.
"""

import logging
from pathlib import Path

import msgspec

from watchkeeper.contracts.record import Gap, LabelRecord, Prediction, Shed, decode_line
from watchkeeper.contracts.spool import CHECKPOINT, Checkpoint, segment_path, segments, written

BATCH_BYTES = 256 * 1024  # some 1,000 one-row records: the ledger's lock is held for milliseconds

log = logging.getLogger(__name__)


class Placed(msgspec.Struct, frozen=True):
    """A line about requests that have no record, and where it stands: that is its name."""

    segment: int
    position: int
    line: Gap | Shed


class Batch(msgspec.Struct, frozen=True):
    """What lies between two checkpoints.

    ``at_end`` tells that the spool held nothing after it; ``pending`` counts the bytes of a last
    line whose rest is still to come.
    """

    after: Checkpoint
    at_end: bool
    predictions: list[Prediction] = []
    labels: list[LabelRecord] = []
    gaps: list[Placed] = []
    pending: int = 0


def read_checkpoint(folder: Path) -> Checkpoint:
    """Return the place to go on from; the first segment when there is none that can be read."""
    try:
        return msgspec.json.decode((folder / CHECKPOINT).read_bytes(), type=Checkpoint)
    except FileNotFoundError:
        return Checkpoint()
    except msgspec.MsgspecError as error:
        # Shipping again is harmless: the ledger knows every record by its id.
        log.warning("%s: %s; everything in the spool is shipped again", folder / CHECKPOINT, error)
        return Checkpoint()


def read_batch(folder: Path, since: Checkpoint, limit: int = BATCH_BYTES) -> Batch:
    """Read about ``limit`` bytes of whole lines, from one segment.

    The segments are listed before any is read: the server only appends to the highest one, so
    a segment below another is complete by then, and a torn line at its end stays torn.
    """
    present = [number for number in segments(folder) if number >= since.segment]
    if not present:
        return Batch(since, at_end=True)
    place = since if present[0] == since.segment else _begin(since, present[0])
    complete = present[-1] > place.segment
    path = segment_path(folder, place.segment)
    if path.stat().st_size < place.offset:
        log.error("%s: shorter than its checkpoint %d; read from its start", path, place.offset)
        place = _begin(place, place.segment)
    chunk, more = _read_lines(path, place.offset, limit)
    whole = chunk.rfind(b"\n") + 1
    batch = _decode(chunk[:whole].split(b"\n")[:-1], place)
    torn = len(chunk) - whole
    if more or not complete:
        return msgspec.structs.replace(batch, at_end=not more, pending=0 if more else torn)
    if torn:
        log.warning("segment %d ends in a torn line of %d bytes", place.segment, torn)
    following = _begin(batch.after, min(n for n in present if n > place.segment))
    following = msgspec.structs.replace(following, torn=batch.after.torn + bool(torn))
    return msgspec.structs.replace(batch, after=following)


def _begin(place: Checkpoint, segment: int) -> Checkpoint:
    return msgspec.structs.replace(place, segment=segment, offset=0)


def _read_lines(path: Path, offset: int, limit: int) -> tuple[bytes, bool]:
    """Read on until there is a whole line, however long; tell whether more follows."""
    parts: list[bytes] = []
    with path.open("rb") as file:
        file.seek(offset)
        while not parts or b"\n" not in parts[-1]:
            parts.append(written(file.read(limit)))
            if len(parts[-1]) < limit:
                return b"".join(parts), False
        return b"".join(parts), bool(written(file.read(1)))


def _decode(lines: list[bytes], place: Checkpoint) -> Batch:
    """Read whole lines; what cannot be read is counted as lost."""
    offset, lost, shed = place.offset, place.lost, place.shed
    found = Batch(place, at_end=False, predictions=[], labels=[], gaps=[])
    for line in lines:
        position, offset = offset, offset + len(line) + 1
        try:
            records = decode_line(line)
        except msgspec.MsgspecError as error:
            lost += 1
            log.warning(
                "segment %d: a line of %d bytes is no record: %s", place.segment, len(line), error
            )
            continue
        for record in records:
            match record:
                case Prediction():
                    found.predictions.append(record)
                case LabelRecord():
                    found.labels.append(record)
                case Gap():
                    lost += record.lost
                    found.gaps.append(Placed(place.segment, position, record))
                case Shed():
                    shed += record.count
                    found.gaps.append(Placed(place.segment, position, record))
    after = msgspec.structs.replace(place, offset=offset, lost=lost, shed=shed)
    return msgspec.structs.replace(found, after=after)
