"""The live losses of a version: one stored block for some consecutive rows and each truth.

A block is stored once and never changes: a label that comes later does not count. So the state of
the concept watch is computed again from the blocks, by any process, with the same result.
"""

import math
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Select, func, select

from watchkeeper.core.record import OK
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.database import Ledger
from watchkeeper.ledger.idempotent_writes import fit_text, insert_once

# The newest judged blocks of a truth, and its newest skipped ones. They bound the cost of reading
# the state again.
BLOCKS_READ: Final = 1000
REASON_LENGTH: Final = 255


class ConceptBlock(msgspec.Struct, frozen=True):
    """The rows of a version with ``since <= time <= until``, record times in seconds since 1970.

    ``rows`` counts the answered rows, ``labelled`` those with a label. ``loss`` is their mean loss,
    from 0 to 1; None if the block was skipped, and ``skipped`` says why.
    """

    since: float
    until: float
    rows: int
    labelled: int
    loss: float | None
    skipped: str = ""


def save_block(ledger: Ledger, model: str, version: int, truth: str, block: ConceptBlock) -> None:
    """Store a block. A second block of a truth with the same end is ignored."""
    key = {"model": model, "version": version, "name": truth}
    values = {**msgspec.structs.asdict(block), "skipped": fit_text(block.skipped, REASON_LENGTH)}
    with ledger.write() as connection:
        insert_once(connection, t.concept_blocks, {**key, **values})


def blocks(
    ledger: Ledger,
    model: str,
    version: int,
    truth: str,
    *,
    limit: int = BLOCKS_READ,
    until: float = math.inf,
) -> list[ConceptBlock]:
    """Return the newest blocks of a truth of a version, oldest first.

    Judged and skipped blocks are counted apart. Otherwise many skipped ones would hide what the
    judged ones show.

    Args:
        ledger: The ledger to read.
        model: The model.
        version: The version.
        truth: The name of the truth.
        limit: The maximum number of judged blocks, and of skipped ones.
        until: Only blocks that end at or before this record time, in seconds since 1970.
    """
    loss = t.concept_blocks.c.loss
    query = _newest_first(model, version, truth, until).limit(limit)
    with ledger.read() as connection:
        found = [
            ConceptBlock(**row._mapping)
            for kind in (loss.is_not(None), loss.is_(None))
            for row in connection.execute(query.where(kind))
        ]
    return sorted(found, key=lambda block: block.until)


def newest_block(
    ledger: Ledger, model: str, version: int, truth: str, *, until: float = math.inf
) -> ConceptBlock | None:
    """Return the last of :func:`blocks`; None if there is none."""
    query = _newest_first(model, version, truth, until).limit(1)
    with ledger.read() as connection:
        row = connection.execute(query).first()
    return None if row is None else ConceptBlock(**row._mapping)


def _newest_first(model: str, version: int, truth: str, until: float) -> Select[Any]:
    b = t.concept_blocks.c
    columns = [b[name] for name in ConceptBlock.__struct_fields__]
    query = select(*columns).where(b.model == model, b.version == version, b.name == truth)
    if until != math.inf:  # which not every database has
        query = query.where(b.until <= until)
    return query.order_by(b.until.desc())


def next_block(
    ledger: Ledger, model: str, version: int, rows: int, *, after: float, until: float
) -> ConceptBlock | None:
    """Return the oldest rows after a time as a block without labels; None if they are too few.

    Only answered rows of real requests count. The block has whole requests, and all requests of the
    time of its last row, so it may have more rows.

    Args:
        ledger: The ledger to read.
        model: The model.
        version: The version that has answered.
        rows: The number of rows that the block needs.
        after: The end of the block before, in seconds since 1970.
        until: Requests after this time do not count.
    """
    p = t.predictions.c
    answered = (
        (p.model == model)
        & (p.version == version)
        & (p.status == OK)
        & p.synthetic.is_(False)
        & (p.rows > 0)
    )
    query = select(p.time, p.rows).where(answered, p.time <= until, *_after(p.time, after))
    with ledger.read() as connection:
        since = end = None
        found = 0
        for time, size in connection.execute(query.order_by(p.time, p.id).limit(rows)):
            since = time if since is None else since
            found += size
            if found >= rows:
                end = time
                break
        if since is None or end is None:
            return None
        count = select(func.sum(p.rows)).where(answered, p.time >= since, p.time <= end)
        total = int(connection.execute(count).scalar_one())
    return ConceptBlock(since, end, total, 0, None)


def _after(column: ColumnElement[float], time: float) -> list[ColumnElement[bool]]:
    """Return the condition that a time is later; -inf, which not every database has, is none."""
    return [] if time == float("-inf") else [column > time]
