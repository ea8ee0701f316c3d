"""The history: the rows that one query on the operational database returns."""

import logging
import sys
from collections.abc import Generator, Sequence
from contextlib import closing
from itertools import compress
from operator import itemgetter
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import text

from watchkeeper.training import CannotTrainError
from watchkeeper.training.database import transaction
from watchkeeper.training.declaration import Model
from watchkeeper.training.rows import Rows
from watchkeeper.training.sampler import Sampler
from watchkeeper.training.usable import Table, usable

log = logging.getLogger(__name__)

_LOWEST, _HIGHEST = -(2**63), 2**63 - 1  # of an integer of 64 bits
PART_ROWS: Final = 20_000


def read_history(url: str, model: Model, sampler: Sampler | None = None) -> Rows:
    """Read the rows of the model's source with a truth, oldest first; all if it has none.

    Args:
        url: SQLAlchemy URL of the operational database, or of a table in a file.
        model: the declaration.
        sampler: chooses the rows, and knows afterwards which they were; the declared limit is used
            without one.

    Raises:
        CannotTrainError: the database or table does not exist, or is empty; a column is missing
            or holds values that it must not; or all rows have the same outcome.
        SourceUnavailableError: the database does not answer.
    """
    frame, where = _query(url, model, sampler or Sampler(model.split)), f"history of {model.name}"
    # A copy of a large table only where it is needed.
    if not frame.index.is_monotonic_increasing:
        frame = frame.sort_index()
    rows = usable(frame, model, where, required=True)
    for truth in model.truths:
        target = rows.about(truth.name).target
        if len(outcomes := np.unique(target)) < 2:
            value = f"is {truth.task.name(outcomes[0])}" if len(outcomes) else "is empty"
            raise CannotTrainError(
                f"{where}: {truth.name!r} {value} in all {len(target) or len(rows)} rows that can "
                "be used; a training run needs rows with different truths"
            )
    return rows


def _check_columns(names: list[str], model: Model, where: str) -> None:
    """Check that the query returns each column that the model names."""
    group = [model.split.group] if model.split.group else []
    for name in (model.source.id, *model.names, *(truth.name for truth in model.truths), *group):
        if names.count(name) != 1:
            found = "twice" if name in names else f"not; it returns {', '.join(map(str, names))}"
            raise CannotTrainError(
                f"{where}: the source's query must return column {name!r} once, and returns it "
                f"{found}"
            )


def _query(url: str, model: Model, sampler: Sampler) -> pd.DataFrame:
    """Return the labelled rows that the sampler keeps, by their ids.

    The rows are read in parts, to need less memory. Of a row that is not kept, only the id, the
    truths and the group are looked at.
    """
    where, labels = f"history of {model.name}", [truth.name for truth in model.truths]
    group = model.split.group
    needed = dict.fromkeys([model.source.id, *labels, *([group] if group else [])])
    count, present = 0, np.zeros(len(labels), dtype=bool)
    with closing(_parts(url, model, where)) as parts:
        for names, part in parts:
            # Without a type pandas would turn integers beside empty values into rounded floats.
            seen = pd.DataFrame(
                {x: pd.Series(map(itemgetter(names.index(x)), part), dtype=object) for x in needed}
            )
            ids = _ids(seen, model, where)
            known = (seen[labels].notna() & (seen[labels] != "")).to_numpy()
            labelled = known.any(axis=1) if labels else np.ones(len(part), dtype=bool)
            count, present = count + len(part), present | known.any(axis=0)
            if sampler.groups and labelled.any():
                sampler.groups.add(seen[group].map(str).to_numpy()[labelled], ids[labelled])
            chosen = sampler.choose(ids, labelled)
            if chosen.any():
                kept = pd.DataFrame(list(compress(part, chosen)), columns=names, dtype=object)
                sampler.keep(_compact(kept).set_axis(pd.Index(ids[chosen]), axis=0))
    if not count:
        raise CannotTrainError(f"{where}: the source's query returns no rows; load some first")
    if labels:
        log.info("%s: %d of %d rows have a label", where, sampler.of, count)
    for name, known_somewhere in zip(labels, present, strict=True):
        if not known_somewhere:
            raise CannotTrainError(
                f"{where}: {name!r} is empty in all {count} rows; a training run needs rows "
                "whose truth is known"
            )
    frame = sampler.take(where)
    if sampler.sample:
        log.info("%s: a sample is read: %s", where, sampler.sample)
    repeated = frame.index.duplicated()
    Table(frame, where).refuse(model.source.id, repeated, "another row has the same id")
    return frame


def _parts(
    url: str, model: Model, where: str
) -> Generator[tuple[list[str], Sequence[Sequence[Any]]]]:
    """Yield the rows of the source's query in parts, with the names of their columns."""
    with transaction(url, f"read the history of {model.name}") as connection:
        streamed = connection.execution_options(yield_per=PART_ROWS)
        result = streamed.execute(text(model.source.query))
        names = list(result.keys())
        _check_columns(names, model, where)
        for part in result.partitions(PART_ROWS):
            yield names, part


def _compact(part: pd.DataFrame) -> pd.DataFrame:
    """Return a part of the rows with arrays of numbers, and with each text once in memory.

    Only integers, or only other numbers and empty cells, become an array. All else stays as it is,
    because messages show the values.
    """

    def compact(values: "pd.Series[Any]") -> "pd.Series[Any]":
        kinds = set(map(type, values))
        if kinds == {int} and _LOWEST <= values.min() <= values.max() <= _HIGHEST:
            return values.astype(np.int64)
        if kinds <= {float, type(None)}:
            return values.astype(np.float64)
        if str in kinds:
            return values.map(lambda value: sys.intern(value) if type(value) is str else value)
        return values

    return pd.DataFrame({place: compact(x) for place, (_, x) in enumerate(part.items())}).set_axis(
        part.columns, axis=1
    )


def _ids(seen: pd.DataFrame, model: Model, where: str) -> NDArray[np.int64]:
    """Return the ids of the rows, of shape (rows,); each row must have one, and a group."""
    name = model.source.id
    for needed in (name, *([model.split.group] if model.split.group else [])):
        if count := int(seen[needed].isna().sum()):
            raise CannotTrainError(
                f"{where}: column {needed!r} is empty in {count} rows; each row needs a value"
            )
    values = seen[name]
    if set(map(type, values)) == {int} and _LOWEST <= values.min() <= values.max() <= _HIGHEST:
        return np.array(values, dtype=np.int64)  # of most databases; others are checked one by one
    whole = [
        not isinstance(value, str)
        and pd.api.types.is_number(value)
        and _LOWEST <= value <= _HIGHEST
        and value == int(value)
        for value in values
    ]
    rule = "an id must be an integer of 64 bits that rises in time"
    table = Table(seen.set_axis(values, axis=0), where)
    table.refuse(name, ~np.array(whole), rule)
    return np.array([int(value) for value in values], dtype=np.int64)
