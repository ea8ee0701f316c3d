"""Retention: removing old rows, one batch at a time, with one event a day.

Everything of a model that is older than one cutoff time is removed. The cutoff is the later of two
times: ``days`` of the policy before now, and the time of the oldest prediction that the policy's
``predictions`` retain. It is never later than what is still needed:

* the onset of an open episode, because its training run reads the labelled rows since then;
* the start of an unfinished rollout, because its steps and its watch read the rows since then.

Events, episodes and attempts stay: they explain all decisions.
"""

import datetime
from functools import partial
from typing import Any, Final

import msgspec
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Row,
    Table,
    and_,
    delete,
    select,
    update,
)

from watchkeeper.core.events import (
    Event,
    RolledBack,
    RolloutStarted,
    RowsRemoved,
    Watched,
    kind_of,
)
from watchkeeper.core.policies import RetentionPolicy
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.concept_blocks import BLOCKS_READ
from watchkeeper.ledger.database import Ledger
from watchkeeper.ledger.deletions import delete_labels
from watchkeeper.ledger.episodes import OPEN_STATES
from watchkeeper.ledger.events import emit_in
from watchkeeper.ledger.idempotent_writes import CHUNK, insert_once, run_transaction

DAY: Final = 86400.0
ROLLOUT_SLACK: Final = 60.0  # the event of a start is written a moment after the start
REPORTS_RETAINED: Final = 200  # for each version: the watch reads the newest reports
# For each truth of a version, judged and skipped blocks apart; more than are read.
BLOCKS_RETAINED: Final = BLOCKS_READ + 1000


class RemovedRows(msgspec.Struct, frozen=True):
    """Numbers of removed rows."""

    predictions: int = 0
    superseded: int = 0
    labels: int = 0
    gaps: int = 0

    def any(self) -> bool:
        """Return whether a row was removed."""
        return any(msgspec.structs.astuple(self))


def retention_cutoff(
    ledger: Ledger,
    model: str,
    policy: RetentionPolicy,
    now: float,
    oldest_retained: float | None,
) -> float:
    """Return the time before which the rows of a model may be removed, in seconds since 1970.

    Args:
        ledger: The ledger to read.
        model: The model.
        policy: The retention policy in force.
        now: The present time, in seconds since 1970.
        oldest_retained: The time of the oldest of the newest ``policy.predictions`` predictions,
            see :class:`watchkeeper.ledger.count_limit.CountLimit`; None if there are fewer.
    """
    with ledger.read() as connection:
        needed = _needed_since(connection, model)
    by_age = now - policy.days * DAY
    return min([by_age if oldest_retained is None else max(by_age, oldest_retained), *needed])


def _needed_since(connection: Connection, model: str) -> list[float]:
    """Return the onsets of open episodes and the start of an unfinished rollout."""
    episode, event = t.episodes.c, t.events.c
    onsets = select(episode.onset).where(episode.model == model, episode.state.in_(OPEN_STATES))
    needed = list(connection.execute(onsets).scalars())
    started = kind_of(RolloutStarted)
    starts = select(event.id, event.time).where(event.model == model, event.kind == started)
    last = connection.execute(starts.order_by(event.time.desc()).limit(1)).first()
    if last is not None:
        # The events of one rollout have ids that differ in their kind only.
        ends = [last.id.replace(f"/{started}/", f"/{kind_of(e)}/") for e in (Watched, RolledBack)]
        if not connection.execute(select(event.id).where(event.id.in_(ends))).first():
            needed.append(last.time - ROLLOUT_SLACK)
    return needed


def remove_batch(ledger: Ledger, model: str, before: float, now: float) -> RemovedRows:
    """Remove some rows that are older than ``before``, and add their numbers to today's.

    Safe to repeat. Call it until nothing is removed any more.
    """
    return run_transaction(ledger, partial(_remove, model=model, before=before, now=now))


def _remove(connection: Connection, model: str, before: float, now: float) -> RemovedRows:
    s, g, f, d = t.superseded.c, t.gaps.c, t.forgotten.c, t.deletions.c
    predictions, labels = _remove_predictions(connection, model, before)
    removed = RemovedRows(
        predictions=predictions,
        superseded=_remove_by_key(
            connection, t.superseded, and_(s.model == model, s.time < before)
        ),
        labels=labels,
        gaps=_remove_by_key(connection, t.gaps, and_(g.model == model, g.until < before)),
    )
    _remove_reports(connection, model, before)
    _remove_blocks(connection, model, before)
    # A late record of a forgotten subject that is older than this is removed by its age anyway.
    _remove_by_key(connection, t.forgotten, and_(f.model == model, f.time < before))
    done = and_(d.model == model, d.finished < before, d.digest != "")
    connection.execute(update(t.deletions).where(done).values(digest=""))
    if removed.any():
        _add_to_today(connection, model, now, removed)
    return removed


def _remove_predictions(connection: Connection, model: str, before: float) -> tuple[int, int]:
    """Remove predictions with their labels; return the numbers of both."""
    p, label = t.predictions.c, t.labels.c
    old = select(p.id).where(p.model == model, p.time < before).order_by(p.time).limit(CHUNK)
    ids = set(connection.execute(old).scalars())
    if ids:
        labels = delete_labels(connection, ids)
        # The numbers of deleted rows: another sidecar may remove the same rows.
        return connection.execute(delete(t.predictions).where(p.id.in_(ids))).rowcount, labels
    # Labels whose prediction is removed, or never arrived.
    old_labels = select(label.prediction).where(label.model == model, label.time < before)
    orphaned = set(connection.execute(old_labels.limit(CHUNK)).scalars())
    return 0, delete_labels(connection, orphaned) if orphaned else 0


def _remove_by_key(connection: Connection, table: Table, old: ColumnElement[bool]) -> int:
    """Delete some rows by their primary keys: not every database has DELETE with LIMIT."""
    key = list(table.primary_key)
    removed = 0
    for row in connection.execute(select(*key).where(old).limit(CHUNK)).all():
        same = and_(*(column == value for column, value in zip(key, row, strict=True)))
        removed += connection.execute(delete(table).where(same)).rowcount
    return removed


def _remove_reports(connection: Connection, model: str, before: float) -> None:
    r = t.drift_reports.c
    versions = select(r.version).where(r.model == model).distinct()
    for version in list(connection.execute(versions).scalars()):
        of_version = and_(r.model == model, r.version == version)
        _remove_but_newest(connection, of_version, r.window_end, before, REPORTS_RETAINED)


def _remove_blocks(connection: Connection, model: str, before: float) -> None:
    b = t.concept_blocks.c
    truths = select(b.version, b.name).where(b.model == model).distinct()
    for version, name in connection.execute(truths).all():
        of_truth = and_(b.model == model, b.version == version, b.name == name)
        # Apart, because many skipped blocks must not remove the judged ones.
        for kind in (b.loss.is_not(None), b.loss.is_(None)):
            _remove_but_newest(connection, and_(of_truth, kind), b.until, before, BLOCKS_RETAINED)


def _remove_but_newest(
    connection: Connection,
    chosen: ColumnElement[bool],
    time: Column[float],
    before: float,
    retained: int,
) -> None:
    """Remove some of the chosen rows that are older than ``before`` and than the newest ones."""
    newest = select(time).where(chosen).order_by(time.desc())
    last = connection.execute(newest.offset(retained - 1).limit(1)).scalar()
    if last is not None:
        _remove_by_key(connection, time.table, and_(chosen, time < min(before, last)))


def _add_to_today(connection: Connection, model: str, now: float, removed: RemovedRows) -> None:
    numbers = msgspec.structs.asdict(removed)
    values = {"model": model, "day": _day(now), **numbers}
    if not insert_once(connection, t.removals, values):
        r = t.removals.c
        today = and_(r.model == model, r.day == values["day"])
        sums = {name: r[name] + number for name, number in numbers.items()}
        connection.execute(update(t.removals).where(today).values(**sums))


def emit_removal_events(ledger: Ledger, model: str, policy: RetentionPolicy, now: float) -> None:
    """Write one event for each day that is over. Safe to repeat."""
    r = t.removals.c
    over = select(t.removals).where(r.model == model, r.day < _day(now))
    with ledger.read() as connection:
        days = connection.execute(over).all()
    for row in days:
        run_transaction(ledger, partial(_emit_day, row=row, policy=policy, now=now))


def _emit_day(connection: Connection, row: Row[Any], policy: RetentionPolicy, now: float) -> None:
    numbers = {name: row._mapping[name] for name in RemovedRows.__struct_fields__}
    event = Event(
        id=f"{row.model}/retention/{row.day}",
        model=row.model,
        version=None,
        time=now,
        reason=f"{row.day}: removed {row.predictions} predictions and {row.labels} labels that "
        "were older than the retention policy allows",
        details=RowsRemoved(day=row.day, **numbers, policy=msgspec.to_builtins(policy)),
    )
    emit_in(connection, event)
    r = t.removals.c
    connection.execute(delete(t.removals).where(r.model == row.model, r.day == row.day))


def _day(now: float) -> str:
    return datetime.datetime.fromtimestamp(now, datetime.UTC).date().isoformat()
