"""Retention by count: the time of the oldest of the newest N predictions of a model.

Counting all predictions every minute would read the whole index. So the time is found once, and
then moved on by the number of new rows.
"""

from typing import Any

from sqlalchemy import func, select

from watchkeeper.ledger import tables as t
from watchkeeper.ledger.database import Ledger

STEP_ROWS = 20_000  # rows that one statement steps over: every statement stays short
RECOUNT_SECONDS = 86400.0  # a recount corrects the effect of late rows and of early removals


class CountLimit:
    """Finds the time before which predictions are beyond the newest ``maximum`` of a model.

    Args:
        ledger: The ledger to read.
        model: The model.
        maximum: The number of predictions to retain. Where several rows have the same time, more
            than this number are retained.
    """

    def __init__(self, ledger: Ledger, model: str, maximum: int) -> None:
        self._ledger = ledger
        self._of_model = t.predictions.c.model == model
        self._maximum = maximum
        self._oldest: float | None = None  # the time of the oldest retained row
        self._missing = 0  # how many more rows are needed until there are ``maximum``
        self._counted_until = 0.0  # rows up to this time are counted
        self._full_count: float | None = None  # the time up to which all rows were counted

    def oldest_retained(self, until: float) -> float | None:
        """Return the time of the oldest prediction to retain.

        Args:
            until: Only predictions up to this time count, in seconds since 1970. Few rows should
                still arrive before it: they are counted at the next recount.

        Returns:
            Seconds since 1970; None if there are fewer than ``maximum`` predictions.

        Raises:
            SQLAlchemyError: the ledger does not answer; call again later.
        """
        if self._full_count is None or not 0 <= until - self._full_count < RECOUNT_SECONDS:
            self._count_all(until)
        elif until > self._counted_until:
            self._count_new(until)
        return self._oldest

    def _count_all(self, until: float) -> None:
        """Step down from the newest row."""
        time = t.predictions.c.time
        oldest, left = until, self._maximum
        older = time <= until
        while left:
            step = min(STEP_ROWS, left)
            found = self._read(select(time).where(older).order_by(time.desc()).offset(step - 1))
            if found is None:
                left -= self._read(select(func.count()).where(older))
                break
            oldest, left = found, left - step
            older = time < oldest
        self._oldest = None if left else oldest
        self._missing = left
        self._counted_until = self._full_count = until

    def _count_new(self, until: float) -> None:
        """Count rows since the last count, and step up by their number."""
        time = t.predictions.c.time
        new = self._read(select(func.count()).where(time > self._counted_until, time <= until))
        if self._oldest is None:
            self._missing -= new
            if self._missing <= 0:
                return self._count_all(until)
        else:
            self._oldest = self._step_up(self._oldest, new)
        self._counted_until = until
        return None

    def _step_up(self, oldest: float, rows: int) -> float:
        time = t.predictions.c.time
        while rows:
            step = min(STEP_ROWS, rows)
            found = self._read(select(time).where(time >= oldest).order_by(time).offset(step))
            if found is None:  # retention has removed some rows
                return oldest
            oldest, rows = found, rows - step
        return oldest

    def _read(self, query: Any) -> Any:
        with self._ledger.read() as connection:
            return connection.execute(query.where(self._of_model).limit(1)).scalar()
