"""Where the newest so many predictions of a model begin, without counting them all every minute."""

from typing import Any

from sqlalchemy import func, select

from watchkeeper.ledger import tables as t
from watchkeeper.ledger.database import Ledger

PART = 20_000  # rows that one statement steps over
AGAIN_SECONDS = 86400.0  # counted anew so often: for what came late, and what went before its time


class Newest:
    """Follows the time of the oldest of the newest ``kept`` predictions of a model.

    It is found once, stepping down from the newest row in short statements. From then on only rows
    that are new are counted, and stepped up by; where times are the same, more rows are kept.
    """

    def __init__(self, ledger: Ledger, model: str, kept: int) -> None:
        self._ledger = ledger
        self._mine = t.predictions.c.model == model
        self._kept = kept
        self._edge: float | None = None
        self._missing = 0  # so many more rows before there is an edge
        self._until = 0.0  # rows up to this time are counted
        self._anew: float | None = None

    def since(self, until: float) -> float | None:
        """Return the time, of predictions up to ``until``; None while there are not so many.

        Hardly anything up to that time should still be to come: it is counted late.

        Raises:
            SQLAlchemyError: the ledger does not answer; ask again later.
        """
        if self._anew is None or not 0 <= until - self._anew < AGAIN_SECONDS:
            self._count_all(until)
        elif until > self._until:
            self._count_new(until)
        return self._edge

    def _count_all(self, until: float) -> None:
        time = t.predictions.c.time
        edge, left = until, self._kept
        newer = time <= until
        while left:
            part = min(PART, left)
            found = self._read(select(time).where(newer).order_by(time.desc()).offset(part - 1))
            if found is None:
                left -= self._read(select(func.count()).where(newer))
                break
            edge, left = found, left - part
            newer = time < edge
        self._edge = None if left else edge
        self._missing = left
        self._until = self._anew = until

    def _count_new(self, until: float) -> None:
        time = t.predictions.c.time
        new = self._read(select(func.count()).where(time > self._until, time <= until))
        if self._edge is None:
            self._missing -= new
            if self._missing <= 0:
                return self._count_all(until)
        else:
            self._edge = self._up(self._edge, new)
        self._until = until
        return None

    def _up(self, edge: float, rows: int) -> float:
        time = t.predictions.c.time
        while rows:
            part = min(PART, rows)
            found = self._read(select(time).where(time >= edge).order_by(time).offset(part))
            if found is None:  # some have gone
                return edge
            edge, rows = found, rows - part
        return edge

    def _read(self, query: Any) -> Any:
        with self._ledger.read() as connection:
            return connection.execute(query.where(self._mine).limit(1)).scalar()
