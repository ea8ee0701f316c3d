"""Retention: what is old enough is removed, a batch at a time, and told once a day.

One time cuts a model's ledger: everything older than it goes. It is the age that the policy names,
or the time of the oldest of the newest predictions that it keeps, whichever is later; but never
later than what somebody still needs:

* the onset of an episode that is open, because its training reads the labelled rows since then;
* the beginning of a rollout that is not over, because its steps, the window that is frozen before
  the promotion and the labels of both versions lie behind it.

Events, episodes and attempts stay: they tell why anything was done.
"""

import datetime

import msgspec
from sqlalchemy import Connection, Table, and_, delete, select, update

from watchkeeper.contracts.policies import RetentionPolicy
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.database import Ledger
from watchkeeper.ledger.deletions import delete_labels
from watchkeeper.ledger.episodes import OPEN_STATES
from watchkeeper.ledger.events import Event, emit_in
from watchkeeper.ledger.once import CHUNK, in_one_transaction, store_new

DAY = 86400.0
ROLLOUT_SLACK = 60.0  # the event of a beginning is written a moment after it
KEPT_REPORTS = 200  # of each version: a streak of windows is read from the newest


class Removed(msgspec.Struct, frozen=True):
    """Counts of rows that were removed; labels are those of predictions, and old ones."""

    predictions: int = 0
    superseded: int = 0
    labels: int = 0
    gaps: int = 0

    def any(self) -> bool:
        """Whether there was anything to remove."""
        return any(msgspec.structs.astuple(self))


def cut(
    ledger: Ledger, model: str, policy: RetentionPolicy, now: float, by_count: float | None
) -> float:
    """Return the time before which a model's rows may go.

    ``by_count`` is the time of the oldest of the newest ``policy.predictions``, see ``Newest``.
    """
    with ledger.read() as connection:
        needed = _needed_since(connection, model)
    by_age = now - policy.days * DAY
    return min([by_age if by_count is None else max(by_age, by_count), *needed])


def _needed_since(connection: Connection, model: str) -> list[float]:
    """Return the times that open episodes and a rollout that is not over begin with."""
    e, told = t.episodes.c, t.events.c
    open_ones = select(e.onset).where(e.model == model, e.state.in_(OPEN_STATES))
    needed = list(connection.execute(open_ones).scalars())
    begun = select(told.id, told.version, told.time).where(
        told.model == model, told.kind == "begun"
    )
    last = connection.execute(begun.order_by(told.time.desc()).limit(1)).first()
    if last is not None:
        ends = [last.id.replace("/begun/", f"/{end}/") for end in ("watched", "rolled-back")]
        if not connection.execute(select(told.id).where(told.id.in_(ends))).first():
            needed.append(last.time - ROLLOUT_SLACK)
    return needed


def remove_batch(ledger: Ledger, model: str, before: float, now: float) -> Removed:
    """Remove some of what is older than ``before`` and count it for today; safe to repeat."""
    return in_one_transaction(ledger, lambda c: _remove(c, model, before, now))


def _remove(connection: Connection, model: str, before: float, now: float) -> Removed:
    p, label = t.predictions.c, t.labels.c
    old = select(p.id).where(p.model == model, p.time < before).order_by(p.time).limit(CHUNK)
    ids = set(connection.execute(old).scalars())
    predictions = labels = 0
    if ids:
        labels = delete_labels(connection, ids)
        # Counted by what is deleted here: another keeper may be about the same rows.
        predictions = connection.execute(delete(t.predictions).where(p.id.in_(ids))).rowcount
    else:  # what belongs to no prediction any more, or never did
        old_labels = select(label.prediction).where(label.model == model, label.time < before)
        lonely = set(connection.execute(old_labels.limit(CHUNK)).scalars())
        labels = delete_labels(connection, lonely) if lonely else 0
    s = t.superseded.c
    removed = Removed(
        predictions=predictions,
        superseded=_remove_by_key(
            connection, t.superseded, and_(s.model == model, s.time < before)
        ),
        labels=labels,
        gaps=_remove_by_key(
            connection, t.gaps, and_(t.gaps.c.model == model, t.gaps.c.until < before)
        ),
    )
    _remove_reports(connection, model, before)
    f, d = t.forgotten.c, t.deletions.c
    # What would be dropped for their sake is too old to be kept now.
    _remove_by_key(connection, t.forgotten, and_(f.model == model, f.time < before))
    done = and_(d.model == model, d.finished < before, d.digest != "")
    connection.execute(update(t.deletions).where(done).values(digest=""))
    if removed.any():
        _count(connection, model, now, removed)
    return removed


def _remove_by_key(connection: Connection, table: Table, old: object) -> int:
    """Delete some rows by their keys: the databases do not agree on a limit of DELETE."""
    key = list(table.primary_key)
    rows = connection.execute(select(*key).where(old).limit(CHUNK)).all()  # type: ignore[arg-type]
    removed = 0
    for row in rows:
        same = and_(*(column == value for column, value in zip(key, row, strict=True)))
        removed += connection.execute(delete(table).where(same)).rowcount
    return removed


def _remove_reports(connection: Connection, model: str, before: float) -> None:
    r = t.drift_reports.c
    versions = select(r.version).where(r.model == model).distinct()
    for version in list(connection.execute(versions).scalars()):
        mine = and_(r.model == model, r.version == version)
        newest = select(r.window_end).where(mine).order_by(r.window_end.desc())
        last = connection.execute(newest.offset(KEPT_REPORTS - 1).limit(1)).scalar()
        if last is not None:
            old = and_(mine, r.window_end < min(before, last))
            _remove_by_key(connection, t.drift_reports, old)


def _count(connection: Connection, model: str, now: float, removed: Removed) -> None:
    counts = msgspec.structs.asdict(removed)
    values = {"model": model, "day": _day(now), **counts}
    if not store_new(connection, t.removals, values):
        r = t.removals.c
        today = and_(r.model == model, r.day == values["day"])
        added = {name: r[name] + count for name, count in counts.items()}
        connection.execute(update(t.removals).where(today).values(**added))


def tell_removals(ledger: Ledger, model: str, policy: RetentionPolicy, now: float) -> None:
    """Write the event of every day that is over; safe to repeat."""
    r = t.removals.c
    over = select(t.removals).where(r.model == model, r.day < _day(now))
    with ledger.read() as connection:
        days = connection.execute(over).all()
    for row in days:
        counts = {name: row._mapping[name] for name in Removed.__struct_fields__}
        event = Event(
            id=f"{model}/retention/{row.day}",
            model=model,
            version=None,
            kind="retention",
            time=now,
            reason=f"{row.day}: {row.predictions} predictions and {row.labels} labels were older "
            "than what is kept",
            details={"day": row.day, **counts, "policy": msgspec.to_builtins(policy)},
        )

        def tell(connection: Connection, event: Event = event, day: str = row.day) -> None:
            emit_in(connection, event)
            connection.execute(delete(t.removals).where(r.model == model, r.day == day))

        in_one_transaction(ledger, tell)


def _day(now: float) -> str:
    return datetime.datetime.fromtimestamp(now, datetime.UTC).date().isoformat()
