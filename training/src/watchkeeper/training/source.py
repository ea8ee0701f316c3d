"""The history: one query on the operational database."""

import numpy as np
import pandas as pd
from sqlalchemy import text

from watchkeeper.training import CannotTrainError
from watchkeeper.training.database import transaction
from watchkeeper.training.declaration import Model
from watchkeeper.training.rows import Rows, usable


def read_history(url: str, model: Model) -> Rows:
    """Read all labelled rows of the model's source, oldest first.

    Raises:
        CannotTrainError: the database or table is not there, it is empty, a column is missing
            or holds what it must not, or all rows have the same outcome.
        SourceUnavailableError: the database does not answer.
    """
    frame = _query(url, model)
    where = f"history of {model.name}"
    wanted = [model.source.id, *model.names, model.target]
    missing = [name for name in wanted if name not in frame]
    if missing:
        raise CannotTrainError(
            f"{where}: the source's query returns no column {missing[0]!r}, only "
            f"{', '.join(map(str, frame.columns))}"
        )
    if frame.empty:
        raise CannotTrainError(f"{where}: the source's query returns no rows; load some first")
    if frame[model.source.id].duplicated().any() or frame[model.source.id].isna().any():
        raise CannotTrainError(
            f"{where}: column {model.source.id!r} must be there once for each row"
        )
    frame = frame.sort_values(model.source.id).rename(columns={model.source.id: "key"})
    rows = usable(frame[frame[model.target].notna()], model, where)
    outcomes = np.unique(rows.target)
    if len(outcomes) < 2:
        raise CannotTrainError(
            f"{where}: {model.target!r} has one outcome only in {len(rows)} rows "
            f"({', '.join(f'{x:g}' for x in outcomes) or 'none'}); both are needed"
        )
    if not np.isin(outcomes, (0.0, 1.0)).all():
        raise CannotTrainError(
            f"{where}: {model.target!r} must be 0 or 1, it holds {outcomes[-1]:g}"
        )
    return rows


def _query(url: str, model: Model) -> pd.DataFrame:
    with transaction(url, f"read the history of {model.name}") as connection:
        result = connection.execute(text(model.source.query))
        return pd.DataFrame(result.fetchall(), columns=list(result.keys()))
